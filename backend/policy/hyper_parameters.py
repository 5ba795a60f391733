"""The hyper-parameters of a training: its number of images and the settings decide."""

from __future__ import annotations

import math

from backend.settings import Settings
from backend.types import HyperParameters

STEPS_IMAGES = 50  # up to this number of images a training has TRAIN_STEPS steps


def hyper_parameters(images: int, settings: Settings, *, epochs: int = 0, minutes: float = 0.0) -> HyperParameters:
    """Return the hyper-parameters of a training on `images` images.

    `epochs` is the number that the control tag sets, at most MAX_EPOCHS. If it is 0, `epochs_for` decides. `minutes` is
    the time budget. An experiment has none, because its numbers must not depend on the speed of the machine.
    """
    return HyperParameters(
        epochs=min(epochs, settings.max_epochs) or epochs_for(images, settings),
        batch=settings.batch,
        imgsz=settings.imgsz,
        seed=settings.seed,
        device=settings.device,
        minutes=minutes,
    )


def steps_for(images: int, settings: Settings) -> float:
    """Return the optimiser steps of a training: train_steps * max(images / 50, 1) ^ steps_growth.

    With a fixed number of steps the learning curve falls as the labels grow, because the training sees each image less
    often. An exponent of 0.5 was measured to be best (docs/results.md).

    >>> steps_for(200, Settings(train_steps=500, steps_growth=0.5)), steps_for(10, Settings(train_steps=500))
    (1000.0, 500.0)
    """
    return float(settings.train_steps * max(images / STEPS_IMAGES, 1.0) ** settings.steps_growth)


def epochs_for(images: int, settings: Settings) -> int:
    """Return the epochs of a training: clip(ceil(steps_for * batch / images), min_epochs, max_epochs).

    >>> epochs_for(200, Settings(train_steps=500, batch=16, min_epochs=10, max_epochs=300))
    80
    """
    wanted = math.ceil(steps_for(images, settings) * settings.batch / max(images, 1))
    return min(max(wanted, settings.min_epochs), settings.max_epochs)
