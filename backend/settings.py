"""One table of settings (name, type, default, help) -> a frozen `Settings`, from the environment.

`loop.extra_params` adds the overrides of a project.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from backend.errors import SettingError


class Settings(BaseModel):
    """Every setting; the environment variable is the field's name in upper case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The connection to Label Studio and our own address: the environment only.
    label_studio_url: str = Field("", description="address of Label Studio, as the backend reaches it")
    label_studio_api_key: str = Field("", description="personal access token (or legacy token) of a Label Studio user")
    model_dir: str = Field(
        "models", description="folder or bucket for versions, caches and state: a path or an fsspec URL"
    )
    redis_url: str = Field(
        "", description="address of redis; empty: `yolo-backend run` starts a redis with its data in MODEL_DIR"
    )
    host: str = Field("127.0.0.1", description="address the server listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        9090, description="port the server listens on; 0: any free port"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="the least important level that is logged"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json: each line of the log is a JSON object, with the project and the job that it is about"
    )
    basic_auth_user: str = Field("", description="user name that Label Studio must send; empty: no password is needed")
    basic_auth_pass: str = Field("", description="password that Label Studio must send")
    allow_anonymous: bool = Field(
        False, description="true: the server may listen without a password on an address that other machines reach"
    )
    backend_url: str = Field(
        "", description="address of the backend, as Label Studio reaches it; empty: the address that Label Studio used"
    )
    device: str = Field("", description="ultralytics device, such as cpu or 0; empty: a GPU if the machine has one")
    allowed_hosts: str = Field("", description="comma list of private hosts from which the backend may fetch images")
    max_media_mb: Annotated[float, Field(gt=0, le=100_000)] = Field(
        50.0, description="largest image or video file in megabytes"
    )
    max_megapixels: Annotated[float, Field(gt=0, le=10_000)] = Field(
        100.0, description="largest image in megapixels; decoding may take 5 MB of memory per megapixel"
    )
    media_cache_gb: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        20.0,
        description="size limit of the cache MODEL_DIR/media in gigabytes; the least recently used files go first, and "
        "those whose URLs expire last",
    )
    reconcile_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        60.0, description="seconds between two regular comparisons with Label Studio"
    )

    # How a project learns: the environment, or a project's extra params.
    base_model: str = Field(
        "yolo11n.pt", description="weights file that the first training starts from; see also `TRAIN_FROM`"
    )
    model_score_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="regions with a lower confidence are not shown to annotators"
    )
    retrain_every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20, description="how many new, changed or deleted annotations start a training"
    )
    consensus: Literal["newest", "vote", "ground_truth"] = Field(
        "newest",
        description="which labels count where several people annotated a task: newest: the ground truth, else the "
        "newest annotation; vote: the ground truth, else what most people agree on; ground_truth: that alone",
    )
    offer_again_below: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="tasks on which annotators agree less than this (F1, with boxes of the same label and IoU >= 0.5) "
        "are offered to one more person; 0: none",
    )
    strategy: str = Field("information_density_unique", description="acquisition function that orders the queue")
    first_batch: Literal["random", "typiclust", "probcover"] = Field(
        "random",
        description="what orders the queue before the first training: chance, or a strategy that needs no labels but "
        "pretrained base weights; EXPLORE_SHARE of the queue stays random",
    )
    explore_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="share of the queue that is drawn at random; the held-out images come from it"
    )
    blank_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of the tasks drawn at random that are handed out without pre-annotation; they show how much "
        "time pre-annotation saves, see the page of a project",
    )
    protocol: Literal["top", "datahunt1", "datahunt2"] = Field(
        "top",
        description="how the strategy fills a batch: top: the best tasks; datahunt1: the best of a random fifth; "
        "datahunt2: one half like datahunt1, one half at random",
    )
    uncertain_share: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="share of a batch that the strategy chooses; the rest is drawn at random and is only for training",
    )
    pool_limit: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        0, description="how many randomly drawn images the strategy ranks; the others come after them; 0: no limit"
    )
    class_weights: Literal["long_tail", "ppal", "none"] = Field(
        "long_tail",
        description="how strongly rare or poorly detected classes are weighted: long_tail: up to 3 times, by their "
        "AP50 on the held-out images; ppal: up to 1.2 times, by the quality of their matches; none: all alike",
    )
    empty: Literal["lowest", "median", "highest"] = Field(
        "median",
        description="value of an image without a predicted box, among the values of the others; lowest suits a model "
        "that recognises background well, highest a model that has learned little",
    )
    committee: Literal["augmented", "snapshots", "perturbed"] = Field(
        "augmented",
        description="the models that a committee strategy compares: augmented: one model on up to four changed copies "
        "of the image; snapshots: the last versions; perturbed: one model with parts of its head switched off",
    )
    committee_size: Annotated[int, Field(ge=2, le=8)] = Field(
        3, description="members of the committee; each member adds the cost of one scoring"
    )
    rate: str = Field(
        "",
        description='how many new tasks may enter the queue\'s front, e.g. "100/day", "10/hour", "5%", "5%, 100/day"',
    )
    bandit: Literal["off", "ucb1", "thompson"] = Field(
        "off", description="method that chooses the strategy of each ranking by what earlier labels gained"
    )
    bandit_arms: str = Field(
        "class_entropy, entropy, random", description="comma list of strategies from which the bandit chooses"
    )
    budget: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        0, description="number of labeled tasks at which the status recommends to stop; 0: no budget"
    )
    imgsz: Annotated[int, Field(ge=32, le=4096)] = Field(
        640, description="image size for training and prediction in pixels"
    )
    tile: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="side in pixels of the overlapping tiles in which larger images are predicted and learned, each "
        "scaled to `IMGSZ`; upright boxes in images only; 0: no tiles, else 64 or more",
    )
    region_choices: bool = Field(
        False,
        description='true: `Choices` and `Taxonomy` with perRegion="true" beside `RectangleLabels` get a model, which '
        "answers for each predicted box; false: they are left alone",
    )
    batch: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="images per training step")
    train_from: Literal["last", "base"] = Field(
        "last",
        description="where a training starts: last: from the accepted version, unless it has other labels, another "
        "base model, or has learned from images that are held out now; base: always from the base weights",
    )
    train_steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        500,
        description="optimiser steps of a training on up to 50 images; more images get more steps, see `STEPS_GROWTH`",
    )
    steps_growth: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="exponent in steps = `TRAIN_STEPS` * (images / 50) ^ `STEPS_GROWTH`; 0: always the same "
        "number of steps, 1: always the same number of epochs",
    )
    min_epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        30, description="lowest number of epochs, however many labels there are"
    )
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        300, description="highest number of epochs, however few labels there are"
    )
    train_minutes: Annotated[float, Field(ge=0, le=100_000)] = Field(
        0, description="time limit of a training in minutes; the number of epochs is lowered to fit; 0: no limit"
    )
    tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="how much mAP50 a new version may lose against the current one and still be published"
    )
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the randomly chosen tasks that is held out for validation"
    )
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = Field(0, description="random seed of training and ranking")
    label_renames: str = Field(
        "",
        description='renamed labels whose annotations still have the old name, e.g. "old -> new; Auto -> Car"',
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for numbers, because pydantic would read them as 1 and 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("switch", "Input should be a number or a text, not true or false")
        return value

    @field_validator("tile")
    @classmethod
    def _tile_or_none(cls, side: int) -> int:
        if 0 < side < 64:
            raise ValueError("a tile has 64 pixels or more; 0 means no tiles")
        return side

    @field_validator("basic_auth_user")
    @classmethod
    def _without_colon(cls, name: str) -> str:
        if ":" in name:  # "a:b" with the password "c" would be "a" with "b:c"
            raise ValueError("a user name cannot hold a colon: in HTTP's Basic authentication it ends the name")
        return name


PROJECT_SETTINGS = tuple(Settings.model_fields)[tuple(Settings.model_fields).index("base_model") :]  # see above


def from_env(environ: Mapping[str, str], **options: Any) -> Settings:
    """Return the settings of an environment; `options` of the command line override it.

    Raises SettingError naming the variable and its allowed values.
    """
    values: dict[str, Any] = {
        name: environ[name.upper()] for name in Settings.model_fields if environ.get(name.upper(), "") != ""
    }
    values |= {name: value for name, value in options.items() if value is not None}
    settings = validated(values, where="environment")
    if settings.label_studio_url:
        require_web_address("LABEL_STUDIO_URL", settings.label_studio_url, "http://localhost:8080")
    return settings


def require_web_address(name: str, address: str, example: str) -> None:
    """Raise SettingError unless an address begins with http:// or https:// and names a host."""
    try:
        parts = urlsplit(address.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        valid = False
    if not valid:
        raise SettingError(f"{name}={address!r} is not a web address", fix=f"write it like {example}")


def versions_kept(settings: Settings) -> int:
    """Return the number of published versions whose weights and scored pools are kept."""
    return max(3, settings.committee_size)


def allowed(name: str) -> str:
    """Return the allowed values of a setting, in words.

    >>> allowed("val_share"), allowed("protocol"), allowed("strategy")
    ('number > 0, < 1', 'top, datahunt1, datahunt2', 'text')
    """
    field = Settings.model_fields[name]
    choices = get_args(field.annotation)
    if choices:
        return ", ".join(choices)
    if field.annotation is bool:
        return "true, false"
    kind = "whole number" if field.annotation is int else "number" if field.annotation is float else "text"
    limits = [
        f"{sign} {getattr(limit, bound)}"
        for limit in field.metadata
        for bound, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if hasattr(limit, bound)
    ]
    return " ".join([kind, ", ".join(limits)]).strip()


def validated(values: dict[str, Any], *, where: str) -> Settings:
    """Return the settings with these values by field name. Raises SettingError, which names the place `where`."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        field = str(problem["loc"][0])
        name = field.upper()
        range_of_values = f"allowed: {allowed(field)}; " if field in Settings.model_fields else ""
        raise SettingError(
            f"{name}={reprlib.repr(problem.get('input'))}: {problem['msg']}",
            where=where,
            fix=f"{range_of_values}see {name} in docs/settings.md",
        ) from None
