"""`make demo`: the whole loop on a real Label Studio, with a scripted annotator instead of people."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from backend.cli import demo_folder
from backend.cli.demo_display import Display
from backend.cli.demo_folder import DemoRecord
from backend.cli.embedded import backend_processes
from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from backend.datasets import reader, synthetic
from backend.errors import BackendError
from backend.settings import Settings, from_env

EMAIL, PASSWORD = "demo@example.com", "active-learning"
POOL, TEST = 240, 100  # generated scenes
SCENE_PX, PHOTO_PX = 160, 320
INTERRUPTED = 128 + signal.SIGINT
DEFAULTS = {"retrain_every": 30, "train_steps": 150}  # a first version within three minutes on two cores


@dataclass(frozen=True, slots=True)
class Demo:
    """The options of a demo: `keep` opens the folder's last demo again, `stay` keeps all running until Ctrl-C."""

    folder: Path
    data: Path | None  # a data.yaml; None: generated scenes
    rounds: int
    keep: bool
    stay: bool


def run(demo: Demo) -> None:
    """Run the demo; without `stay` it ends with one summary line.

    Raises BusyError if a demo runs in the folder, and SystemExit after a Ctrl-C before the last round.
    """
    display = Display(Console(soft_wrap=True))
    with demo_folder.locked(demo.folder), _stopping(display):
        if not demo.keep and demo_folder.read(demo.folder):
            display.line(f"Removing the demo before from {demo.folder.resolve()}; with --keep it is opened again.")
        record = demo_folder.reopen(demo.folder) if demo.keep else demo_folder.renew(demo.folder)
        logging.basicConfig(filename=demo.folder / "demo.log", level="WARNING")
        display.line(f"Label Studio: {record.label_studio_url}   login {EMAIL} / {PASSWORD}   (up in a minute)")
        display.line(f"Logs:         {demo.folder.resolve()}")
        try:
            _run(demo, record, display)
        except KeyboardInterrupt:
            display.line(f"Stopped. {_again(demo)}")
            raise SystemExit(INTERRUPTED) from None


def _run(demo: Demo, record: DemoRecord, display: Display) -> None:
    # These take seconds to import; the addresses are already on the screen.
    from backend.cli.demo_loop import Loop, config_of, environ_of, summary
    from backend.labelstudio.client.connection import LabelStudioClient

    data_yaml = _data(demo, record, display)
    data = reader.read(data_yaml)
    settings = _settings(demo, record, data_yaml)
    _check_size(data, settings, demo.rounds)
    with ExitStack() as stack:
        display.line("Starting Label Studio (its first start takes a minute) ...")
        studio = stack.enter_context(
            start_label_studio(
                label_studio_binary(),
                demo.folder / "label-studio",
                email=EMAIL,
                password=PASSWORD,
                port=record.label_studio_port,
            )
        )
        settings = settings.model_copy(update={"label_studio_api_key": studio.api_key})
        backend = stack.enter_context(backend_processes(settings, environ_of(settings, os.environ), demo.folder))
        client = stack.enter_context(LabelStudioClient(studio.url, studio.api_key))
        project_id = record.project_id or client.projects.create(
            f"Active learning: {data_yaml.parent.name}", config_of(data.classes)
        )
        display.line(f"Queue:        {studio.url}/projects/{project_id}/data")
        display.line(f"Page:         {backend.url}/projects/{project_id}   (the loop at work)")
        loop = Loop(display, client, settings, backend, data, project_id)
        if not record.project_id:
            loop.attach()
            written = record.model_copy(update={"data": str(data_yaml.resolve()), "project_id": project_id})
            demo_folder.write(demo.folder, written)
        played = [done for _ in range(demo.rounds) if (done := loop.round())]
        if len(played) < demo.rounds:
            display.line(f"{len(played)} of {demo.rounds} rounds: too few images are left to label")
        if demo.stay:
            display.line("Everything stays up. Ctrl-C ends it.")
            with suppress(KeyboardInterrupt):
                backend.watch(threading.Event())
    if played:
        print(summary(played))  # noqa: T201 the line that scripts read
    display.line(_again(demo))


def _again(demo: Demo) -> str:
    return f"To open this demo again: yolo-backend demo --keep --folder {demo.folder} (make demo ARGS=--keep)"


def _data(demo: Demo, record: DemoRecord, display: Display) -> Path:
    """Return the data.yaml of the demo; generates scenes where no data set is named."""
    if record.data:
        return Path(record.data)
    if demo.data is None:
        display.line(f"Generating {POOL} scenes and a class-balanced test set of {TEST} ...")
        return synthetic.generate(demo.folder / "scenes", pool=POOL, test=TEST, seed=0)
    if not demo.data.is_file():
        raise BackendError("no such data set", where=str(demo.data), fix="name an ultralytics data.yaml")
    return demo.data


def _settings(demo: Demo, record: DemoRecord, data_yaml: Path) -> Settings:
    """Return settings that suit the demo's images; settings in the environment win."""
    generated = data_yaml.resolve().is_relative_to(demo.folder.resolve())
    defaults: dict[str, object] = {
        **DEFAULTS,
        "model_dir": demo.folder / "models",
        "imgsz": SCENE_PX if generated else PHOTO_PX,
    }
    settings = from_env({name.upper(): str(value) for name, value in defaults.items()} | dict(os.environ))
    return settings.model_copy(update={"label_studio_url": record.label_studio_url, "port": record.backend_port})


def _check_size(data: reader.YoloData, settings: Settings, rounds: int) -> None:
    if rounds and len(data.train) < settings.retrain_every:
        raise BackendError(
            f"the data set has {len(data.train)} images to label, and the first training comes after "
            f"{settings.retrain_every} labels",
            fix="set RETRAIN_EVERY to a smaller number",
        )


@contextmanager
def _stopping(display: Display) -> Iterator[None]:
    """Answer a Ctrl-C with a line at once, then stop all processes; a second Ctrl-C does not wait for them."""

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        display.line("Stopping Label Studio and the backend ... (Ctrl-C again does not wait for them)")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
