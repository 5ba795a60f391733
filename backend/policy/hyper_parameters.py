"""How long a training runs, and with what: the number of its images and the settings decide."""

from __future__ import annotations

import math

from backend.settings import Settings
from backend.types import HyperParameters

STEPS_IMAGES = 50  # images up to which TRAIN_STEPS is meant


def hyper_parameters(images: int, settings: Settings, *, epochs: int = 0, minutes: float = 0.0) -> HyperParameters:
    """Return what a training on so many images is run with.

    `epochs` are those that the control tag asks for, up to MAX_EPOCHS; 0: `epochs_for` decides. `minutes` is the budget
    of time; an experiment has none, because its numbers must not depend on the machine's pace.
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
    """Return the optimiser steps of a training: train_steps * (images / 50) ^ steps_growth, and no fewer below 50.

    With a fixed number of steps the learning curve falls as labels grow, because each image is seen ever more rarely.
    The square root of the number of images is the measured law (docs/results.md).

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
