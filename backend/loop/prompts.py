"""Round zero: before the first training, the labels of a project are prompts for an open-vocabulary base model."""

from __future__ import annotations

from pathlib import Path

from backend.errors import ModelError
from backend.evaluation.prompt_precision import PromptPrecision
from backend.loop.context import Context
from backend.types import ControlTag
from backend.yolo import approved_weights, open_vocabulary
from backend.yolo.base_weights import BaseWeights
from backend.yolo.tasks import is_open_vocabulary


def are_asked(tag: ControlTag, base_model: str) -> bool:
    """Return whether a tag's base model is asked for the tag's labels."""
    return is_open_vocabulary(base_model) and bool(tag.prompts)


def vocabulary(context: Context, project_id: int, tag: ControlTag, base_model: str) -> dict[str, str]:
    """Return the labels that a base model is asked for, each with its prompt; without those that are switched off."""
    off = {entry.label for entry in measured(context, project_id, tag, base_model) if entry.is_off}
    return {label: prompt for label, prompt in zip(tag.labels, tag.prompts, strict=True) if label not in off}


def measured(context: Context, project_id: int, tag: ControlTag, base_model: str) -> tuple[PromptPrecision, ...]:
    """Return the measurements of a tag's prompts, as far as they are of its prompts and its base model of now."""
    current = set(zip(tag.labels, tag.prompts, strict=False))
    return tuple(
        entry
        for entry in context.store.state.prompt_precision(project_id)
        if (entry.tag, entry.base_model) == (tag.from_name, base_model) and (entry.label, entry.prompt) in current
    )


def weights(context: Context, project_id: int, tag: ControlTag, base_model: str, base: BaseWeights) -> Path | None:
    """Return the weights that answer a tag's prompts; their classes are its labels. None: every label is switched off.

    Raises ModelError where the text encoder is missing.
    """
    asked = vocabulary(context, project_id, tag, base_model)
    if not asked:
        return None
    try:
        return open_vocabulary.prompted(Path(base.source), asked, context.work_dir)
    except ModelError:  # this machine may not have the encoder yet, where MODEL_DIR is a bucket
        for name in (open_vocabulary.encoder_of(base_model), approved_weights.LISTING):
            context.store.fetch(name, context.work_dir)
    return open_vocabulary.prompted(Path(base.source), asked, context.work_dir)
