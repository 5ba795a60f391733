"""What the tables of docs/results.md say, in words: written by hand after a run, beside the numbers it speaks of."""

from __future__ import annotations

FINDINGS: dict[str, str] = {
    "scenes": """\
Both curves fall at the end, because every training had 500 steps however many labels there were: see the schedule
below, which is the default now. `auto` does not beat `class_entropy`, so `class_entropy` is the default strategy.""",
    "heuristics-scenes": """\
The gain is there at every seed. By boxes it is smaller, because uncertain images hold more of them.""",
    "heuristics-bccd": """\
Read with care: random's own curve falls, so that the first 20 images reach its end already and the target is met by
that alone. What remains is the gain at the end. Platelets decide: their AP50 jumps between 0 and .36 from training
to training (RBC .73 to .78, WBC .89 to .97). The law of the schedule gives up to 50 images the same number of
steps, and 150 of them are too few here; it is not proven for so few images and so few steps.""",
    "heuristics-balanced": """\
Uncertain images teach more here, too, though no class is rare; they hold more boxes, and by boxes the intervals
reach the control's.""",
    "heuristics-repeated": """\
Missed, and why: of 120 labels `class_entropy` spends 16 on images that do not belong (random 5) and the others on
52 different scenes (random 88). `class_entropy_unique` should find more and finds 55: what it takes for
near-duplicates is too strict for the embeddings of so early a model. `auto` finds 69, but not more gain.""",
    "share-scenes": """\
One seed. The gain grows with the share up to 70% and stays there; DataHunt's half is worth .059 of its .105.""",
    "explore": """\
Up to 20% the explore share costs nothing that two seeds could show, 50% does. It pays for the validation set and
the live control, so 20% stays.""",
    "batch": """\
One seed: no size of the batch stands out at 260 labels. Small batches cost a training each; 10 was not run.""",
    "continue": """\
Continuing is far ahead, at the same number of steps per round: at 180 labels its weights have had those of all three
trainings, about 640, and those of a restart the last training's, about 270.""",
    "schedule": """\
With a fixed number of steps the curve falls or stands still: at 300 images each is seen a fifth as often. With
steps that grow with the root of the images it rises. That is the default (`STEPS_GROWTH`), on top of `TRAIN_STEPS`.""",
    "share-digits": """\
The more of a batch is picked by margin the better, all the way to 100%: unlike on CIFAR-10, where the talk saw no
gain.""",
}
