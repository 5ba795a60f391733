"""Images -> Predictions: the only place that predicts with ultralytics.

One forward pass gives boxes, the probabilities of all classes, box variance and embeddings: the eval head of
ultralytics returns its raw logits and the neck's features beside the decoded boxes. Driving the model directly, instead
of through `YOLO.predict`, keeps the order of the paths, names unreadable files, and frees full-size images at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from backend.errors import ModelError
from backend.types import ByteArray, FloatArray, Prediction, YoloTask
from backend.yolo.decoding import Masks, hulls, masks_of, points_confidence
from backend.yolo.dense_head import Dense, anchor_features, dfl_variance
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import check_finite, load_model, select_device, task_of
from backend.yolo.tasks import RECIPES
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

KEEP_CONFIDENCE = 0.05  # lowest confidence of a box that is kept
BATCH = 16
_CPU_PIXELS = 4 * 640 * 640  # per forward pass: above this a CPU's caches overflow, and an image takes 10 to 20% longer
IOU = 0.7  # of two boxes of one class, above which NMS keeps the surer one; ultralytics' default
_NMS_SECONDS = 60.0  # per image; ultralytics' default of 0.05 drops the boxes of whole images on a busy machine


@dataclass(frozen=True, slots=True)
class KeptBoxes(Generic[A]):
    """The n boxes that NMS keeps, as tensors or as arrays, in pixels of the image as the model sees it."""

    boxes: A  # (n, 4) xyxy; of turned boxes x centre, y centre, width, height
    confidence: A  # (n,)
    class_probs: A  # (n, C)
    variance: A | None  # (n, 4) DFL variance in px², None where the head has no DFL
    extra: A  # (n, E) what the task adds: the angle, the mask's coefficients, or the points; E = 0 for boxes alone
    features: A  # (n, D) embeddings

    def map(self, change: Callable[[A], B]) -> KeptBoxes[B]:
        """Return the same with each array changed."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        changed: dict[str, Any] = {name: None if old is None else change(old) for name, old in arrays.items()}
        return KeptBoxes(**changed)

    def by_image(self, counts: Sequence[int]) -> list[KeptBoxes[A]]:
        """Return the boxes of each image, `counts` in turn."""
        ends = np.cumsum([0, *counts]).tolist()
        return [self.map(partial(_rows, begin, end)) for begin, end in pairwise(ends)]


def load_detector(weights: Path, imgsz: int, device: str = "", threads: int = 0) -> Detector:
    """Return a Detector of a weights file; `device` as ultralytics spells it, empty for a GPU where there is one.

    `threads` is the number it computes with on a CPU, 0: one for each core; the last bits of a result depend on it.
    Raises ModelError as `load_model` does, SettingError for a device this machine lacks.
    """
    model = load_model(weights)
    if (task := task_of(model)) in ("classify", "semantic"):
        raise ModelError(f"a {RECIPES[task].noun} model finds no objects", where=str(weights))
    from ultralytics.nn.autobackend import AutoBackend

    # end2end=False: the one-to-many head of YOLO26 goes through NMS like the others, which says what anchors it kept.
    return Detector(AutoBackend(model, select_device(device), end2end=False, verbose=False), imgsz, threads)


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

    def watch(
        self, frames: Iterable[npt.NDArray[np.uint8]], iou: float = IOU, lowest: float = KEEP_CONFIDENCE
    ) -> Iterator[Prediction]:
        """Give one Prediction per frame of a video (h, w, 3) BGR, in order; BATCH of them are held at a time.

        `iou` is that of NMS, `lowest` the confidence of a box that is kept.
        """
        left = iter(frames)
        while images := [self._letterboxed(pixels) for pixels in islice(left, BATCH)]:
            yield from self._by_shape(images, partial(self._forward, iou=iou, lowest=lowest))

    def _read(self, path: Path) -> Letterboxed:
        return self._letterboxed(read_pixels(path))

    def _letterboxed(self, pixels: npt.NDArray[np.uint8]) -> Letterboxed:
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

    def _forward(
        self, images: Sequence[Letterboxed], iou: float = IOU, lowest: float = KEEP_CONFIDENCE
    ) -> list[Prediction]:
        """Run the model once on images of one letterboxed shape."""
        import torch

        with self._alone():
            pixels = self.stack(images)
            decoded, raw = self._model(pixels)
            on_device, counts = self._kept(decoded, raw, iou, lowest)
            masks: Sequence[Masks | None] = [None] * len(images)
            if self.task == "segment":
                objects = zip(images, decoded[1], on_device.by_image(counts), strict=True)
                masks = [masks_of(image, protos, of.extra, of.boxes) for image, protos, of in objects]
            kept = on_device.map(_as_array)
            embeddings = torch.cat([level.mean((2, 3)) for level in raw["feats"]], 1).cpu().numpy()
            looks = thumbnails(pixels)
        kept.map(check_finite)
        check_finite(embeddings)
        parts = zip(images, kept.by_image(counts), embeddings, masks, looks, strict=True)
        return [self._prediction(*part) for part in parts]

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
                angles=found[:, -1] if self.task == "obb" else None,
                strides=self._head.strides[0],
                grids=tuple((level.shape[2], level.shape[3]) for level in raw["feats"]),
            )

    def _kept(
        self, decoded: torch.Tensor, raw: dict[str, Any], iou: float, lowest: float
    ) -> tuple[KeptBoxes[torch.Tensor], list[int]]:
        """Return the kept boxes of all images, and their number per image."""
        import torch
        from ultralytics.utils.nms import non_max_suppression

        kept, anchors = non_max_suppression(
            decoded,
            lowest,
            iou,
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
        variance = None
        if self._head.reg_max > 1:
            sides = raw["boxes"][image, :, anchor].unflatten(1, (4, -1))
            variance = dfl_variance(sides, self._head.strides[0, anchor])
        kept = KeptBoxes(
            boxes=found[:, :4],
            confidence=found[:, 4],
            class_probs=raw["scores"][image, :, anchor].sigmoid(),
            variance=variance,
            extra=found[:, 6:].contiguous(),  # the last bits of masks depend on how it lies in memory
            features=anchor_features(raw["feats"], image, anchor),
        )
        return kept, counts

    def _prediction(
        self,
        image: Letterboxed,
        kept: KeptBoxes[FloatArray],
        embedding: FloatArray,
        masks: Masks | None,
        thumbnail: ByteArray,
    ) -> Prediction:
        boxes, rotated, keypoints = kept.boxes, None, None
        if self.task == "obb":
            letterboxed = np.concatenate([boxes, kept.extra], axis=1)
            rotated, boxes = image.upright_rotated(letterboxed), hulls(letterboxed)
        shape_confidence = masks.confidence if masks else None
        if self.task == "pose":
            keypoints = image.upright_keypoints(kept.extra.reshape(len(boxes), *self._head.kpt_shape))
            shape_confidence = points_confidence(keypoints)
        return Prediction(
            width=image.width,
            height=image.height,
            boxes=image.upright(boxes),
            class_probs=kept.class_probs,
            confidence=kept.confidence,
            embedding=embedding,
            box_variance=None if kept.variance is None else kept.variance / image.gain**2,
            box_embeddings=kept.features,
            rotated=rotated,
            outlines=masks.outlines if masks else None,
            keypoints=keypoints,
            shape_confidence=shape_confidence,
            thumbnail=thumbnail,
        )


def _rows(begin: int, end: int, values: Any) -> Any:
    return values[begin:end]


def _as_array(values: torch.Tensor) -> FloatArray:
    array: FloatArray = values.cpu().numpy()
    return array


def _before(conv: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Let a layer get `change(x)` instead of x; returns the hook."""
    return conv.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
