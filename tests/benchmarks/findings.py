"""What the tables of docs/results.md say, in words: written by hand after a run, beside the numbers it speaks of."""

from __future__ import annotations

FINDINGS: dict[str, str] = {
    "scenes": """\
With its first batch the default passes what random ends with, at both seeds. The three are alike, and their curves
fall at the end, because every training had 500 steps however many labels there were: see the schedule below, which is
the default now. `information_density_unique` was run a day later than the others, on the same machine, images, splits
and settings; `auto` ran when near-copies were sought by embeddings.""",
    "heuristics-scenes": """\
What is uncertain about classes gains at every seed: `information_density`, `entropy`, `class_entropy` and their kin
are alike within noise. `information_density_unique` needs the fewest images and boxes, and holds its own where others
do not (every scene five times, below), so it is the default. By boxes the gain is smaller, because uncertain images
hold more of them. `max_herding`, `localization` and `learning_loss` are no different from random beyond noise;
`core_set` is worse, and so is `bald`, whose committee is one model on changed images (`COMMITTEE=augmented`).
`class_entropy_unique` finds no near-copies here, so its picks are those of `class_entropy`. `auto` ran when they were
sought by embeddings.""",
    "heuristics-bccd": """\
Both are ahead at every seed, `class_entropy` by more. Random rises from 20 to 40 images and no further, so what it ends
with is soon reached. With 150 steps instead of 300, as in an earlier run, random's curve fell: see the steps of few
images below. The other families have the next table.""",
    "families-bccd": """\
One batch of 20: the first of the table before. `ppal`, `entropy` and `class_entropy` are ahead of random at every
seed. For all others, the default among them, the interval holds 0: three seeds of one batch on 72 test images tell no
more. That the default gains comes with its second batch, above.""",
    "heuristics-balanced": """\
Uncertain images teach more here, too, though no class is rare; they hold more boxes, and by boxes most intervals reach
the control's. `ppal`, `information_density`, `class_entropy`, `auto`, `entropy` and `kmeans` are alike within noise,
and ahead of random at every seed. So is `core_set`, which is worse than random where classes are rare; `localization`,
`bald`, `max_herding` and `learning_loss` are no different from random. The default gains less than `class_entropy`, at
every seed, and less than `information_density`, whose typicality has the power 1 where that of the default has 4:
where all images belong, preferring typical ones that much only costs. It is the default all the same, for what pools
are like as they come: see every scene five times, below. Who has chosen his images with care takes
`class_entropy_unique`, which is `class_entropy` here. `auto` ran when near-copies were sought by embeddings.""",
    "heuristics-repeated": """\
Missed, and more clearly by lines that avoid copies. There are 190 scenes: the 120 labels of `class_entropy` hold 52 of
them and 16 images that do not belong (random 88 and 5), those of `class_entropy_unique` 88 and 19, of the default 96
and 12. With the first 60 that is nearly all there are, easy ones too, and where all are labeled no choice is left: the
default ends with .589, random with .593 where each scene is there once (below). One more copy of a hard scene teaches
more than that. So this pool is too small for the question; the next has five times as many scenes.
`python -m tests.benchmarks.picks FOLDER` counts scenes and what does not belong.""",
    "heuristics-repeated-many": """\
Met, though the interval reaches beyond. The 120 labels of the default hold 108 scenes and 7 images that do not belong
(random 109 and 6), those of `class_entropy` 65 and 16, of `class_entropy_unique` 92 and 23: without copies there is
more room for what does not belong, and with one seed of three it took half of a batch. The power that typicality has
in the default, 4, was chosen by the picks that the first versions of these three seeds would have made, before
anything was trained on them: so this table is no blind test of it, as the others are.""",
    "heuristics-distinct": """\
With 180 of 190 scenes labeled all lines must meet, as those do above that take no scene twice.""",
    "datahunt-scenes": """\
One seed. Both methods end ahead of random, and the order between them changes from round to round.""",
    "datahunt-bccd": """\
One seed. Both methods are ahead from their first batch on. Random's own curve hardly rises, so the shares of images
say little: platelets are learned or not from one training to the next.""",
    "share-scenes": """\
One seed. The gain grows with the share up to 70% and stays there; DataHunt's half is worth .059 of its .105.""",
    "explore": """\
Up to 20% the explore share costs nothing that two seeds could show, 50% does. It pays for the validation set and
the live control, so 20% stays.""",
    "batch": """\
One seed: no size of the batch stands out at 260 labels, from 10 to 200. Small batches cost a training each: 20 for the
smallest, one for the largest. From one training to the next, 10 labels apart, the smallest moves by .016 on average
from 140 labels on, up or down: more than lies between the sizes.""",
    "continue": """\
Continuing is far ahead, at the same number of steps per round: at 180 labels its weights have had those of all three
trainings, about 640, and those of a restart the last training's, about 270.""",
    "continue-long": """\
One seed. Still ahead with three times the steps, though by less: for the same work in a round, going on is worth
more here than starting anew. It is the default since (`TRAIN_FROM`); three rounds are few.""",
    "goes-on": """\
What class entropy gains at the end is what it gains where every training starts anew (+0.063), on a level that is .18
higher. By images that is less, 79% where it was 62%, and by boxes nothing: here every round adds steps of training,
and so quality, whatever was labeled.""",
    "corrections": """\
Going on from a version that was taught a wrong class in 30% of its boxes ends where going on from clean labels does,
and far ahead of starting anew, at every seed: what was wrong is gone with the next training. So going on is the
default. Not measured: many rounds, and labels that were removed.""",
    "schedule": """\
With a fixed number of steps the curve falls or stands still: at 300 images each is seen a fifth as often. With
steps that grow with the root of the images it rises. That is the default (`STEPS_GROWTH`), on top of `TRAIN_STEPS`.""",
    "schedule-bccd": """\
One seed. It is not the law that makes random's curve fall on BCCD, but the 150 steps it is multiplied with: with
twice as many no curve falls, and 20 images teach more than 60 did. The default of `TRAIN_STEPS` is 500.""",
    "choice-digits": """\
By the textbook's entropy of all classes, least confidence and variance the first batches teach less than random ones:
what is like none of the ten classes comes first, and the model gains from it only once it knows them. `margin`, which
looks at the two likeliest classes, and `class_entropy`, which asks whether the likeliest is right, are ahead of random
at each of 20 seeds, on average over the rounds. So the default and its kin ask that of a choice, too. The other
measures are what their names say; choose `margin` among those. "As of a box" an image may be nothing as well: by that
`least_confidence` is ahead of random, too, though of the three worked examples of a distribution it puts the least
uncertain first. Not measured: photographs, fewer classes.""",
    "share-digits": """\
The more of a batch is picked by margin the better, all the way to 100%: unlike on CIFAR-10, where the talk saw no
gain.""",
}
