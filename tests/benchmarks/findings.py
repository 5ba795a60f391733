"""The sentences below the tables of docs/results.md, written by hand after the runs."""

from __future__ import annotations

FINDINGS: dict[str, str] = {
    "scenes": """\
At both seeds, the first batch of the default already passes the last mAP50 of random. The three strategies are
alike. Their curves fall at the end because every training had 500 steps, however many labels there were. A schedule
with more steps for more images prevents this (see below), and it is the default now. `information_density_unique` ran
one day after the others, on the same machine, with the same images, splits and settings. When `auto` ran, it still
compared embeddings to find near-copies.""",
    "heuristics-scenes": """\
Strategies that look for uncertain classes gain at every seed. `information_density`, `entropy`, `class_entropy` and
similar strategies do not differ significantly. `information_density_unique` needs the fewest images and boxes. It also
works on pools where others fail (every scene five times, below), so it is the default. The gain by boxes is smaller,
because uncertain images hold more boxes. `max_herding`, `localization` and `learning_loss` do not differ significantly
from random. `core_set` is worse than random. `bald` is worse too; its committee was one model on changed images
(`COMMITTEE=augmented`). `class_entropy_unique` finds no near-copies here, so it picks the same images as
`class_entropy`. When `auto` ran, it still compared embeddings to find near-copies.""",
    "heuristics-bccd": """\
Both strategies are better than random at every seed, `class_entropy` by more. Random improves from 20 to 40 images and
not afterwards, so other strategies soon reach its last value. In an earlier run with 150 steps instead of 300, the
curve of random fell; see "How many steps do few images need?" below. The next table has the other strategies.""",
    "families-bccd": """\
This is one batch of 20 images, the first batch of the previous table. `ppal`, `entropy` and `class_entropy` are better
than random at every seed. For all others, including the default, the interval contains 0. Three seeds of one batch on
72 test images cannot show more. The default gains with its second batch, in the previous table.""",
    "heuristics-balanced": """\
Uncertain images help here too, although no class is rare. They hold more boxes. By boxes, most intervals include the
control. `ppal`, `information_density`, `class_entropy`, `auto`, `entropy` and `kmeans` do not differ significantly, and
are better than random at every seed. `core_set` is better than random too, although it is worse where classes are rare.
`localization`, `bald`, `max_herding` and `learning_loss` do not differ significantly from random. The default gains
less than `class_entropy` at every seed, and less than `information_density`. The reason is the weight of typicality:
`information_density` uses its power 1, and the default its power 4. If all images belong to the project, such a strong
preference for typical images costs labels. It is still the default, because real pools have copies and images that do
not belong (every scene five times, below). If you have selected your images with care, use `class_entropy_unique`,
which equals `class_entropy` here. When `auto` ran, it still compared embeddings to find near-copies.""",
    "heuristics-repeated": """\
The default misses the target. So do strategies that avoid copies, by more. The pool has 190 scenes. Of the 120 labels
of `class_entropy`, 52 are different scenes and 16 are images that do not belong (random: 88 and 5). For
`class_entropy_unique` the numbers are 88 and 19, for the default 96 and 12. Together with the first 60 labels these are
nearly all scenes, including easy ones. Once all scenes are labeled, there is no choice left: the default ends with
.589, and random ends with .593 if each scene is in the pool once (below). One more copy of a hard scene helps more. So
this pool is too small for the question, and the next pool has five times as many scenes.
`python -m tests.benchmarks.picks FOLDER` counts the scenes and the images that do not belong.""",
    "heuristics-repeated-many": """\
The target is met, although part of the interval lies above it. Of the 120 labels of the default, 108 are different
scenes and 7 are images that do not belong (random: 109 and 6). For `class_entropy` the numbers are 65 and 16, for
`class_entropy_unique` 92 and 23. Without copies, more images that do not belong enter a batch; at one of three seeds
they filled half of it. We chose the power 4 of typicality by looking at the picks of the first versions of these three
seeds, before any training on the picks. So this table is no blind test of the default. The other tables are.""",
    "heuristics-distinct": """\
With 180 of 190 scenes labeled, all curves must meet. In the table with five copies of each scene, the strategies that
avoid copies meet in the same way.""",
    "datahunt-scenes": """\
One seed. Both methods end better than random. Which of the two is better changes from round to round.""",
    "datahunt-bccd": """\
One seed. Both methods are better than random from their first batch on. The curve of random hardly rises, so the shares
of images mean little: a training either learns to detect platelets or does not.""",
    "first-batch": """\
Each line is one training per seed on 20 images. TypiClust and ProbCover choose 16 of these, and 4 are random. TypiClust
is better than random at all three seeds, by 0.008 to 0.015. ProbCover is worse at all three, by 0.011 to 0.017. Part of
this may be the number of boxes (seeds 0, 1, 2; TypiClust: 77, 67, 73; random: 68, 53, 77; ProbCover: 39, 53, 45). Of
strategies that equal random, one in four has all three seeds on the same side. The base weights are weak: this
`letters.pt` had 400 steps instead of 1,200. So the default of `FIRST_BATCH` stays random. A gain of 0.012 on one
generated set does not outweigh what a ranked first batch costs: only a fifth of it may be held out, and it needs
pretrained base weights. The command of [Simulate](simulate.md#the-first-batch) compares first batches on your data.""",
    "share-scenes": """\
One seed. The gain grows with the share up to 70%, and then stays the same. DataHunt's share of one half gives .059 of
the full gain of .105.""",
    "explore": """\
With two seeds, an explore share of up to 20% has no visible cost; 50% has one. The explored images are needed as
held-out images and for the live control, so the default stays 20%.""",
    "batch": """\
One seed. At 260 labels, no batch size from 10 to 200 is clearly better. Small batches need more trainings: 20 for the
smallest size, one for the largest. From 140 labels on, the mAP50 of the smallest size changes by .016 on average, up or
down, between two trainings that are 10 labels apart. This is more than the difference between the batch sizes.""",
    "continue": """\
Continuing from the last version is far better with the same number of steps per round. At 180 labels, its weights have
had the steps of all three trainings, about 640. A restart has had only the steps of the last training, about 270.""",
    "continue-long": """\
One seed. With three times the steps, continuing is still better, but by less. For the same work per round, continuing
is worth more than a restart here. It is the default since then (`TRAIN_FROM`). Three rounds are few.""",
    "goes-on": """\
At the end, `class_entropy` gains as much as with restarts (+0.063), at an mAP50 that is .18 higher. By images the gain
is smaller: 79% are needed instead of 62%. By boxes there is no gain: here every round adds training steps, and so
quality, whatever was labeled.""",
    "corrections": """\
The first version learned a wrong class for 30% of its boxes. At every seed, continuing from this version ends as well
as continuing from clean labels, and far better than a restart. So the next training removes the errors, and continuing
is the default. We did not measure many rounds, or labels that were removed.""",
    "schedule": """\
With a fixed number of steps, the curve falls or stays flat: at 300 images, each image is seen a fifth as often as at
60. If the steps grow with the square root of the number of images, the curve rises. This is the default
(`STEPS_GROWTH`, together with `TRAIN_STEPS`).""",
    "schedule-bccd": """\
One seed. On BCCD, the curve of random falls because training starts with only 150 steps, not because of the growth of
the steps. With twice as many steps no curve falls, and 20 images give more than 60 images gave before. The default of
`TRAIN_STEPS` is 500.""",
    "choice-digits": """\
With the textbook's entropy of all classes, least confidence and variance, the first batches help less than random ones.
These measures first pick images that resemble none of the ten classes, and the model profits from such images only
after it knows the classes. `margin` compares the two most likely classes, and `class_entropy` asks whether the most
likely class is right. On average over the rounds, both are better than random at each of 20 seeds. So the default and
similar strategies also ask whether the most likely choice is right. The other measures do what their names say; of
these, choose `margin`. "As of a box" adds the outcome "nothing" to the classes. With it, `least_confidence` is better
than random too, but of the three worked examples of distributions it then ranks the least uncertain one first. We did
not measure photographs or fewer classes.""",
    "share-digits": """\
The larger the share of a batch that `margin` picks, the better, up to 100%. The CIFAR-10 talk did not see such a
gain.""",
}
