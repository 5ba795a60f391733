"""What the tables of docs/results.md show, in words: written by hand after a run, beside the numbers."""

from __future__ import annotations

FINDINGS: dict[str, str] = {
    "scenes": """\
With its first batch the default passes the mAP50 that random has at the end, at both seeds. The three strategies are
alike. Their curves fall at the end, because every training had 500 steps however many labels there were. The schedule
below mends this, and it is the default now. `information_density_unique` ran a day later than the others, on the same
machine, images, splits and settings. `auto` ran when near-copies were found by embeddings.""",
    "heuristics-scenes": """\
Strategies that look for uncertain classes gain at every seed. `information_density`, `entropy`, `class_entropy` and
similar strategies are alike within noise. `information_density_unique` needs the fewest images and boxes. It also
works where others do not (every scene five times, below), so it is the default. By boxes the gain is smaller, because
uncertain images hold more boxes. `max_herding`, `localization` and `learning_loss` are no different from random beyond
noise. `core_set` is worse. So is `bald`, whose committee is one model on changed images (`COMMITTEE=augmented`).
`class_entropy_unique` finds no near-copies here, so it picks the same images as `class_entropy`. `auto` ran when
near-copies were found by embeddings.""",
    "heuristics-bccd": """\
Both strategies are ahead at every seed, `class_entropy` by more. Random rises from 20 to 40 images and no further, so
its last value is soon reached. With 150 steps instead of 300, in an earlier run, random's curve fell: see the steps of
few images below. The next table has the other families.""",
    "families-bccd": """\
This is one batch of 20: the first batch of the table before. `ppal`, `entropy` and `class_entropy` are ahead of random
at every seed. For all others, including the default, the interval contains 0. Three seeds of one batch on 72 test
images show no more. The default gains with its second batch, above.""",
    "heuristics-balanced": """\
Uncertain images help more here too, although no class is rare. They hold more boxes, and by boxes most intervals reach
the control's. `ppal`, `information_density`, `class_entropy`, `auto`, `entropy` and `kmeans` are alike within noise,
and ahead of random at every seed. `core_set` is ahead too, although it is worse than random where classes are rare.
`localization`, `bald`, `max_herding` and `learning_loss` are no different from random. The default gains less than
`class_entropy` at every seed, and less than `information_density`. The typicality of an image has the power 1 there
and the power 4 in the default: where all images belong, such a strong preference for typical images only costs. It is
the default all the same, because real pools have copies and images that do not belong: see every scene five times,
below. If you have chosen your images with care, use `class_entropy_unique`, which equals `class_entropy` here. `auto`
ran when near-copies were found by embeddings.""",
    "heuristics-repeated": """\
The default misses the target, and strategies that avoid copies miss it more clearly. There are 190 scenes. The 120
labels of `class_entropy` hold 52 of them and 16 images that do not belong (random 88 and 5), those of
`class_entropy_unique` 88 and 19, those of the default 96 and 12. With the first 60 labels these are nearly all scenes,
including easy ones, and where all are labeled no choice is left: the default ends with .589, and random with .593 where
each scene is there once (below). One more copy of a hard scene helps more than that. So this pool is too small for the
question, and the next pool has five times as many scenes. `python -m tests.benchmarks.picks FOLDER` counts scenes and
images that do not belong.""",
    "heuristics-repeated-many": """\
The target is met, although the interval reaches beyond it. The 120 labels of the default hold 108 scenes and 7 images
that do not belong (random 109 and 6), those of `class_entropy` 65 and 16, those of `class_entropy_unique` 92 and 23.
Without copies there is more room for images that do not belong; with one of three seeds they took half of a batch. The
power of typicality in the default, 4, was chosen by the picks that the first versions of these three seeds would have
made, before anything was trained on them. So this table is no blind test of it. The other tables are.""",
    "heuristics-distinct": """\
With 180 of 190 scenes labeled all lines must meet. Above, the lines that take no scene twice meet in the same way.""",
    "datahunt-scenes": """\
One seed. Both methods end ahead of random, and the order between them changes from round to round.""",
    "datahunt-bccd": """\
One seed. Both methods are ahead from their first batch on. Random's own curve hardly rises, so the shares of images
mean little: a training either learns platelets or does not.""",
    "share-scenes": """\
One seed. The gain grows with the share up to 70% and stays there. DataHunt's half gives .059 of its .105.""",
    "explore": """\
An explore share of up to 20% costs nothing that two seeds could show; 50% costs something. It provides the held-out
images and the live control, so 20% stays.""",
    "batch": """\
One seed. At 260 labels no batch size from 10 to 200 stands out. Each small batch costs a training: 20 trainings for the
smallest size, one for the largest. From one training to the next, 10 labels apart, the smallest size moves by .016 on
average from 140 labels on, up or down. This is more than the difference between the sizes.""",
    "continue": """\
Continuing is far ahead, at the same number of steps per round. At 180 labels its weights have had the steps of all
three trainings, about 640; a restart has had those of the last training, about 270.""",
    "continue-long": """\
One seed. Continuing is still ahead with three times the steps, though by less. For the same work in a round, it is
worth more here than starting anew. It has been the default since (`TRAIN_FROM`). Three rounds are few.""",
    "goes-on": """\
At the end `class_entropy` gains as much as where every training starts anew (+0.063), on a level that is .18 higher. By
images the gain is smaller, 79% where it was 62%, and by boxes there is none: here every round adds steps of training,
and so quality, whatever was labeled.""",
    "corrections": """\
One version was taught a wrong class in 30% of its boxes. Continuing from it ends where continuing from clean labels
ends, and far ahead of starting anew, at every seed: the next training removes what was wrong. So continuing is the
default. Many rounds, and labels that were removed, were not measured.""",
    "schedule": """\
With a fixed number of steps the curve falls or stands still: at 300 images each image is seen a fifth as often. With
steps that grow with the root of the images the curve rises. That is the default (`STEPS_GROWTH`), together with
`TRAIN_STEPS`.""",
    "schedule-bccd": """\
One seed. Random's curve falls on BCCD not because of the growth of the steps, but because of the 150 steps from which
it starts. With twice as many steps no curve falls, and 20 images give more than 60 did. The default of `TRAIN_STEPS` is
500.""",
    "choice-digits": """\
With the textbook's entropy of all classes, least confidence and variance, the first batches help less than random ones.
Images that resemble none of the ten classes come first, and the model only gains from them after it knows the classes.
`margin` looks at the two likeliest classes, and `class_entropy` asks whether the likeliest one is right. Both are ahead
of random at each of 20 seeds, on average over the rounds. So the default and similar strategies also ask whether the
likeliest choice is right. The other measures do what their names say; of these, choose `margin`. "As of a box" means
that an image may also be nothing. With that, `least_confidence` is ahead of random too, although it puts the least
uncertain of the three worked examples of a distribution first. Photographs and fewer classes were not measured.""",
    "share-digits": """\
The larger the share of a batch that margin picks the better, up to 100%. On CIFAR-10 the talk saw no such gain.""",
}
