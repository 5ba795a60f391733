"""Images -> Predictions: the only place that predicts with ultralytics.

One forward pass gives boxes, the probabilities of all classes, box variance and embeddings: the eval head of
ultralytics returns its raw logits and the neck's features beside the decoded boxes. Driving the model directly, instead
of through `YOLO.predict`, keeps the order of the paths, names unreadable files, and frees full-size images at once.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import MediaError, ModelError, SettingError
from backend.shapes import hulls, mask_confidence, mask_outlines, points_confidence
from backend.types import FloatArray, Outline, Prediction, YoloTask
from backend.yolo_tasks import RECIPES, example

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_Masks = tuple[tuple[Outline, ...] | None, FloatArray | None]  # outlines, how sure they are; None where there are none

KEEP_CONFIDENCE = 0.05  # lowest confidence of a box that is kept
BATCH = 16
_CPU_PIXELS = 4 * 640 * 640  # per forward pass: above this a CPU's caches overflow, and an image takes 10 to 20% longer
_IOU = 0.7  # ultralytics' default for NMS
_NMS_SECONDS = 60.0  # per image; ultralytics' default of 0.05 drops the boxes of whole images on a busy machine
_INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@functools.cache
def quiet_ultralytics() -> None:
    """Import ultralytics so that it stays offline and silent, installs nothing and writes nothing outside our folders.

    It also opens weights with its restricted unpickler, which knows nothing but model classes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve their own kind on a busy machine
    os.environ |= {
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "YOLO_AUTOINSTALL": "false",
        "ULTRALYTICS_SAFE_LOAD": "true",
    }
    before = os.environ.get("YOLO_CONFIG_DIR")
    # Settings are only read at import, which also changes how numpy prints.
    with tempfile.TemporaryDirectory(prefix="yolo-backend-") as folder, np.printoptions():
        os.environ["YOLO_CONFIG_DIR"] = before or folder
        import torchvision  # noqa: F401  ultralytics uses its faster NMS where it is already imported
        from ultralytics.data import base as data_base
        from ultralytics.data import utils as data_utils
        from ultralytics.utils import SETTINGS, patches
    Image.open = patches._image_open  # theirs needs a package for HEIF that is not there, and fails on any other text
    if before is None:
        del os.environ["YOLO_CONFIG_DIR"]
    dict.update(SETTINGS, dict.fromkeys(_INTEGRATIONS, False))  # in memory: its own update() writes the file
    data_utils.check_font = lambda *_: None  # it would download a font for plots that are never drawn
    bar = data_base.TQDM  # draws itself over anything that listens, whatever YOLO_VERBOSE says
    data_base.TQDM = lambda *args, **kwargs: bar(*args, **kwargs | {"disable": True})


def load_model(weights: Path, task: YoloTask | None = None) -> Any:
    """Return the ultralytics model in a weights file, in float32 on the CPU; `task`: the only one it may be for.

    Raises ModelError for a missing or damaged file and for a model of another task.
    """
    quiet_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    if not weights.is_file():  # ultralytics would try to download it
        raise ModelError("no such weights", where=str(weights), fix="put the file there, or train a version first")
    try:
        model, _ = load_checkpoint(weights)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"cannot read the weights: {reason}", where=str(weights), fix="replace the file") from error
    found = task_of(model)
    if found is None or task not in (None, found):
        wanted = task or "detect"
        raise ModelError(
            f"the model is of the class {type(model).__name__}, not a YOLO {RECIPES[wanted].noun} model",
            where=str(weights),
            fix=f"use weights like {example(wanted)}",
        )
    return model


def task_of(model: Any) -> YoloTask | None:
    """Return the task of an ultralytics model, None for one that is of no use here."""
    from ultralytics.nn import modules

    for task, recipe in RECIPES.items():  # by its exact class: the models of other tasks are subclasses of this one
        if type(model).__name__ == recipe.model and isinstance(model.model[-1], getattr(modules, recipe.head)):
            return task
    return None


def load_detector(weights: Path, imgsz: int, device: str = "", threads: int = 0) -> Detector:
    """Return a Detector of a weights file; `device` as ultralytics spells it, empty for a GPU where there is one.

    `threads` is the number it computes with on a CPU, 0: one for each core; the last bits of a result depend on it.
    Raises ModelError as `load_model` does, SettingError for a device this machine lacks.
    """
    model = load_model(weights)
    if task_of(model) == "classify":
        raise ModelError("a classification model finds no objects", where=str(weights))
    from ultralytics.nn.autobackend import AutoBackend

    # end2end=False: the one-to-many head of YOLO26 goes through NMS like the others, which says what anchors it kept.
    return Detector(AutoBackend(model, select_device(device), end2end=False, verbose=False), imgsz, threads)


def fix_threads(threads: int) -> None:
    """Let trainings and evaluations of this process compute with that many threads, on whatever machine.

    Sums over threads round differently with each number of them, so the same seed would train other weights.
    """
    quiet_ultralytics()
    import torch
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = threads  # select_device sets it anew each time
    torch.set_num_threads(threads)


def select_device(device: str) -> torch.device:
    """Return the torch device of the DEVICE setting, the first one of a list.

    Raises SettingError where this machine lacks it.
    """
    quiet_ultralytics()
    import torch
    from ultralytics.utils.torch_utils import select_device as ultralytics_device

    try:
        return torch.device(ultralytics_device(device.split(",")[0], verbose=False))
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = next(line.strip() for line in str(error).splitlines() if line.strip())
        raise SettingError(f"DEVICE={device!r}: {reason}", fix="use cpu, 0, or leave it empty") from error


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """An image as the model gets it."""

    pixels: npt.NDArray[np.uint8]  # (h, w, 3) BGR, letterboxed to the model's size
    height: int  # of the upright original
    width: int

    @property
    def gain(self) -> float:
        """Return how many pixels of the letterboxed image one of the original is."""
        return min(self.pixels.shape[0] / self.height, self.pixels.shape[1] / self.width)

    def upright(self, boxes: FloatArray) -> FloatArray:
        """Return boxes xyxy (n, 4) in pixels of the original, clipped to it."""
        from ultralytics.utils.ops import scale_boxes

        moved: FloatArray = scale_boxes(self.pixels.shape[:2], boxes.copy(), (self.height, self.width))
        return moved

    def upright_points(self, points: FloatArray) -> FloatArray:
        """Return points (k, 2) in pixels of the original, clipped to it."""
        from ultralytics.utils.ops import scale_coords

        moved: FloatArray = scale_coords(self.pixels.shape[:2], points.copy(), (self.height, self.width))
        return moved

    def upright_keypoints(self, keypoints: FloatArray) -> FloatArray:
        """Return keypoints (n, K, 2 or 3) as Prediction has them; without a third column all of them are seen."""
        sure = keypoints[:, :, 2:] if keypoints.shape[2] > 2 else np.ones_like(keypoints[:, :, :1])
        return np.concatenate([self.upright_points(keypoints[:, :, :2]), sure], axis=2)

    def upright_rotated(self, rotated: FloatArray) -> FloatArray:
        """Return rotated boxes (n, 5), as Prediction has them, in pixels of the original."""
        from ultralytics.utils.ops import scale_boxes

        moved: FloatArray = scale_boxes(self.pixels.shape[:2], rotated.copy(), (self.height, self.width), xywh=True)
        return moved


@dataclass(frozen=True, slots=True)
class Dense:
    """What a model says of all A anchors of B images of one shape, before NMS."""

    probs: torch.Tensor  # (B, C, A)
    boxes: torch.Tensor  # (B, 4, A) x centre, y centre, width, height in pixels of the batch
    sides: torch.Tensor | None  # (B, 4 * reg_max, A) logits of left, top, right, bottom; None where there is no DFL
    strides: torch.Tensor  # (A,)
    grids: tuple[tuple[int, int], ...]  # rows and columns of each level; anchors lie level by level, row by row


class Detector:
    """A detection model in memory, safe to share between threads."""

    def __init__(self, model: Any, imgsz: int, threads: int = 0) -> None:
        """Take an ultralytics AutoBackend and the longest side, in pixels, that images are scaled to."""
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils.checks import check_imgsz

        self.classes: tuple[str, ...] = tuple(model.names[index] for index in range(len(model.names)))
        self._model = model.eval()
        self._head = model.model.model[-1]
        task = task_of(model.model)
        assert task is not None, "load_model lets no other through"
        self.task: YoloTask = task
        extra = RECIPES[task].extra
        self._extra = int(getattr(self._head, extra)) if extra else 0
        self.strides: tuple[int, ...] = tuple(int(stride) for stride in self._head.stride)
        size = check_imgsz(imgsz, stride=model.stride, min_dim=2)
        self._letterbox = LetterBox(size, auto=True, stride=model.stride)
        self._threads = threads or os.cpu_count() or 1
        self._lock = threading.Lock()  # the head caches its anchors for the last image shape

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Give one Prediction per path, in order; at most 2 * BATCH letterboxed images are held at a time.

        An image's Prediction does not depend on its neighbours: images are batched with those of their own shape.
        Raises MediaError naming a file that is not an image, ModelError when the model's output is not finite.
        """
        return self.run(paths, self._forward)

    def run(self, paths: Sequence[Path], forward: Callable[[Sequence[Letterboxed]], Sequence[T]]) -> Iterator[T]:
        """Yield what `forward` gives for each path, in order; it gets images of one shape at a time."""
        windows = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            reads = [readers.submit(self._read, path) for path in windows[0]] if windows else []
            for following in [*windows[1:], ()][: len(windows)]:
                images = [read.result() for read in reads]
                reads = [readers.submit(self._read, path) for path in following]
                yield from self._by_shape(images, forward)

    def _read(self, path: Path) -> Letterboxed:
        pixels = read_pixels(path)
        height, width = pixels.shape[:2]
        return Letterboxed(self._letterbox(image=pixels), height, width)

    def _by_shape(
        self, images: Sequence[Letterboxed], forward: Callable[[Sequence[Letterboxed]], Sequence[T]]
    ) -> list[T]:
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            shapes.setdefault(image.pixels.shape, []).append(index)
        found: dict[int, T] = {}
        for (height, width, _), same in shapes.items():
            size = self._forward_size(height * width)
            for indices in (same[start : start + size] for start in range(0, len(same), size)):
                found |= zip(indices, forward([images[index] for index in indices]), strict=True)
        return [found[index] for index in range(len(images))]

    def _forward_size(self, pixels: int) -> int:
        """Return how many images of `pixels` each go through the model at once."""
        return BATCH if self._model.device.type != "cpu" else max(1, min(BATCH, _CPU_PIXELS // pixels))

    def _forward(self, images: Sequence[Letterboxed]) -> list[Prediction]:
        """Run the model once on images of one letterboxed shape."""
        import torch

        with self._alone():
            decoded, raw = self._model(self.stack(images))
            table, counts = self._table(decoded, raw)
            masks = self._masks(decoded, table.split(counts), images)
            rows = table.cpu().numpy()
            embeddings = torch.cat([level.mean((2, 3)) for level in raw["feats"]], 1).cpu().numpy()
        if not (np.isfinite(rows).all() and np.isfinite(embeddings).all()):
            raise not_finite()
        parts = np.split(rows, np.cumsum(counts)[:-1])
        return [self._prediction(*each) for each in zip(images, parts, embeddings, masks, strict=True)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Use the model in this thread only; torch's number of threads is set anew, because each thread has its own."""
        import torch

        with self._lock, torch.inference_mode():
            torch.set_num_threads(self._threads)
            yield

    def stack(self, images: Sequence[Letterboxed]) -> torch.Tensor:
        """Return images of one shape as a batch (B, 3, height, width), RGB in [0, 1]."""
        import torch

        pixels = torch.from_numpy(np.stack([image.pixels for image in images])).to(self._model.device)
        return pixels.permute(0, 3, 1, 2).contiguous().flip(1).float().div_(255)

    def dense(self, batch: torch.Tensor, perturb: Callable[[int, torch.Tensor], torch.Tensor] | None = None) -> Dense:
        """Return what the model says of every anchor; `perturb(i, x)` changes what the head's i-th last layer gets."""
        last = [branch[-1] for branch in (*self._head.cv2, *self._head.cv3)]
        with self._alone():
            hooks = [] if perturb is None else [_before(conv, partial(perturb, i)) for i, conv in enumerate(last)]
            try:
                decoded, raw = self._model(batch)
            finally:
                for hook in hooks:
                    hook.remove()
            found = decoded[0] if self.task == "segment" else decoded  # the other one are the masks' prototypes
            return Dense(
                probs=found[:, 4 : 4 + len(self.classes)],
                boxes=found[:, :4],
                sides=raw["boxes"] if self._head.reg_max > 1 else None,
                strides=self._head.strides[0],
                grids=tuple((level.shape[2], level.shape[3]) for level in raw["feats"]),
            )

    def _table(self, decoded: torch.Tensor, raw: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
        """Return the kept boxes of all images, one per row, and their number per image.

        Columns: xyxy in letterboxed pixels (of rotated boxes centre, width and height), confidence, C class
        probabilities, 4 variances (with DFL only), what the task adds, embedding.
        """
        import torch
        from ultralytics.utils.nms import non_max_suppression

        kept, anchors = non_max_suppression(
            decoded,
            KEEP_CONFIDENCE,
            _IOU,
            nc=len(self.classes),
            max_time_img=_NMS_SECONDS,
            return_idxs=True,
            rotated=self.task == "obb",
        )
        counts = [len(boxes) for boxes in kept]
        image = torch.arange(len(counts), device=self._model.device).repeat_interleave(
            torch.tensor(counts, device=self._model.device)
        )
        anchor = torch.cat([index.view(-1).long() for index in anchors])
        found = torch.cat(kept)
        columns = [found[:, :5], raw["scores"][image, :, anchor].sigmoid()]
        if self._head.reg_max > 1:
            columns.append(
                dfl_variance(raw["boxes"][image, :, anchor].unflatten(1, (4, -1)), self._head.strides[0, anchor])
            )
        columns += [found[:, 6:], _anchor_features(raw["feats"], image, anchor)]
        return torch.cat(columns, 1), counts

    def _columns(self) -> tuple[int, int, int]:
        """Return where the variances, what the task adds, and the embeddings begin in a row of `_table`."""
        variances = 5 + len(self.classes)
        extra = variances + 4 * (self._head.reg_max > 1)
        return variances, extra, extra + self._extra

    def _masks(self, decoded: Any, rows: Sequence[torch.Tensor], images: Sequence[Letterboxed]) -> list[_Masks]:
        """Return the masks of all kept objects of each image."""
        if self.task != "segment":
            return [(None, None)] * len(images)
        _, begin, end = self._columns()
        found: list[_Masks] = []
        for image, each, protos in zip(images, rows, decoded[1], strict=True):
            of = protos, each[:, begin:end], each[:, :4], image.pixels.shape[:2]
            outlines = tuple(tuple(image.upright_points(ring) for ring in outline) for outline in mask_outlines(*of))
            found.append((outlines, mask_confidence(*of)))
        return found

    def _prediction(self, image: Letterboxed, rows: FloatArray, embedding: FloatArray, masks: _Masks) -> Prediction:
        end, extra, features = self._columns()
        rotated = None
        boxes = rows[:, :4]
        if self.task == "obb":
            letterboxed = np.concatenate([boxes, rows[:, features - 1 : features]], axis=1)
            rotated, boxes = image.upright_rotated(letterboxed), hulls(letterboxed)
        keypoints = None
        outlines, sure = masks
        if self.task == "pose":
            keypoints = rows[:, extra:features].reshape(len(rows), *self._head.kpt_shape)
            keypoints = image.upright_keypoints(keypoints)
            sure = points_confidence(keypoints)
        return Prediction(
            width=image.width,
            height=image.height,
            boxes=image.upright(boxes),
            class_probs=rows[:, 5:end],
            confidence=rows[:, 4],
            embedding=embedding,
            box_variance=rows[:, end:extra] / image.gain**2 if extra > end else None,
            box_embeddings=rows[:, features:],
            rotated=rotated,
            outlines=outlines,
            keypoints=keypoints,
            shape_confidence=sure,
        )


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image (h, w, 3) in BGR; raises MediaError naming a file that is not an image."""
    from ultralytics.utils.patches import imread

    try:
        pixels: npt.NDArray[np.uint8] | None = imread(path)
    except Exception as error:  # cv2.error and the decoders' own; all mean the same here
        raise MediaError(f"cannot decode the image: {error}", where=str(path), fix="replace the file") from error
    if pixels is None:
        raise MediaError("not an image that can be read", where=str(path), fix="replace the file")
    return pixels


def not_finite() -> ModelError:
    """Return the error of a model that gives NaN."""
    return ModelError("the model's output is not finite", fix="roll back to an earlier version, or train again")


def _before(conv: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Let a layer get `change(x)` instead of x; returns the hook."""
    return conv.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))


def dfl_variance(logits: torch.Tensor, stride: torch.Tensor) -> torch.Tensor:
    """Return the variance of each box side, Σ k² p_k − (Σ k p_k)² times stride², in px².

    `logits` (n, 4, reg_max) of the distribution focal loss, `stride` (n,); the result is (n, 4). Uniform over 16 bins
    and stride 1 gives 21.25. Source: Generalized Focal Loss, https://arxiv.org/abs/2006.04388
    """
    import torch

    p = logits.softmax(2)
    k = torch.arange(p.shape[2], dtype=p.dtype, device=p.device)
    mean = (p * k).sum(2, keepdim=True)
    return (p * (k - mean) ** 2).sum(2) * stride[:, None] ** 2  # the centred form cannot round below zero


def _anchor_features(levels: Sequence[torch.Tensor], image: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """Return the neck's feature vector at each anchor, pooled to the narrowest level's length: (m, D)."""
    from torch.nn.functional import adaptive_avg_pool1d

    length = min(level.shape[1] for level in levels)
    vectors = levels[0].new_zeros(len(anchor), length)
    start = 0
    for level in levels:
        end = start + level.shape[2] * level.shape[3]
        here = ((anchor >= start) & (anchor < end)).nonzero().view(-1)
        if len(here):
            full = level.flatten(2)[image[here], :, anchor[here] - start]
            vectors[here] = adaptive_avg_pool1d(full, length)
        start = end
    return vectors
