"""Private names of other packages that we override or use: a change of one fails here, by name.

Behaviour is tested where it is used. Here each name stands with the place that needs it, and its package has an upper
bound in pyproject.toml.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from typing import Any

import pytest

from tests.support import ROOT

# Where the name is, its parameters as we give or take them, and which room of ours needs it.
CONTRACTS = [
    ("rq.worker", "Worker.wait_for_horse", ["self"], "queue"),
    ("rq.worker", "Worker.maintain_heartbeats", ["self", "job", "execution"], "queue"),
    ("rq.job", "Job.func", [], "queue"),
    ("h11", "Connection.send_with_data_passthrough", ["self", "event"], "web"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol.connection_made", ["self", "transport"], "web"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol.data_received", ["self", "data"], "web"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol.connection_lost", ["self", "exc"], "web"),
    ("ultralytics.utils.patches", "_image_open", None, "yolo"),
    ("ultralytics.data.utils", "check_font", None, "yolo"),
    ("ultralytics.data.base", "TQDM", None, "yolo"),
    ("ultralytics.engine.trainer", "BaseTrainer.validate", ["self"], "yolo"),
    ("ultralytics.engine.trainer", "BaseTrainer.final_eval", ["self"], "yolo"),
    ("ultralytics.engine.trainer", "BaseTrainer.get_dataset", ["self"], "yolo"),
    ("ultralytics.models.yolo.classify", "ClassificationTrainer.build_dataset", ["self", "img_path", "mode"], "yolo"),
    ("ultralytics.models.yolo.classify", "ClassificationTrainer.get_model", ["self", "cfg", "weights"], "yolo"),
    ("ultralytics.models.yolo.classify", "ClassificationTrainer.preprocess_batch", ["self", "batch"], "yolo"),
    ("ultralytics.nn.tasks", "torch_safe_load", ["weight"], "yolo"),
    ("ultralytics.nn.tasks", "SAFE_LOAD", None, "yolo"),
    ("ultralytics.utils.checks", "AUTOINSTALL", None, "yolo"),
    ("ultralytics.models.sam.build", "_load_checkpoint", ["model", "checkpoint"], "yolo"),
    ("ultralytics.optim.muon", "zeropower_via_newtonschulz5", ["G"], "yolo"),
    ("ultralytics.utils.nms", "non_max_suppression", ["prediction"], "yolo"),
    ("torch._dynamo.utils", "is_compile_supported", ["device_type"], "yolo"),
    ("ultralytics.trackers.byte_tracker", "BYTETracker.update", ["self", "results", "img"], "yolo"),
]


@pytest.mark.torch
@pytest.mark.parametrize(("module", "name", "parameters", "room"), CONTRACTS)
def test_a_name_that_nobody_promised_is_there(module: str, name: str, parameters: list[str] | None, room: str) -> None:
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(value, part), f"backend/{room} needs {module}.{name}"
        value = inspect.getattr_static(value, part)
    if parameters:
        actual = list(inspect.signature(value).parameters)
        assert actual[: len(parameters)] == parameters, f"backend/{room} calls or overrides {module}.{name}"


@pytest.mark.torch
def test_attributes_that_are_only_there_at_work() -> None:
    """Attributes of instances cannot be looked up on the class, so the source of the class is read."""
    from rq.worker import Worker
    from ultralytics.trackers.byte_tracker import BYTETracker
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.h11_impl import H11Protocol

    for owner, attribute in [
        (Worker, "_stop_requested"),
        (H11Protocol, "self.conn"),
        (H11Protocol, "self.flow"),
        (FlowControl, "self.read_paused"),
        (BYTETracker, "self.tracked_stracks"),
        (BYTETracker, "self.frame_id"),
    ]:
        sources = "".join(inspect.getsource(cls) for cls in owner.__mro__ if cls is not object)
        assert attribute in sources, f"{owner.__name__}: {attribute}"


def test_each_of_these_packages_has_an_upper_bound() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    bounded = {re.split(r"[<>=\[]", line)[0] for line in dependencies if "<" in line}
    assert {module.split(".")[0] for module, *_ in CONTRACTS} <= bounded
