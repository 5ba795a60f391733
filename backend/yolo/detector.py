"""Detectors: from images to Predictions.

One forward pass gives boxes, the probabilities of all classes, box variance and embeddings, because the eval head of
ultralytics returns its raw logits and the neck's features beside the decoded boxes. We call the model directly instead
of `YOLO.predict`: this keeps the order of the paths, names unreadable files, and frees full-size images at once.
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
from backend.yolo.dense_head import DenseOutput, anchor_features, dfl_variance
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.runtime import check_finite, load_model, select_device, task_of
from backend.yolo.tasks import RECIPES
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

KEEP_CONFIDENCE = 0.05  # the lowest confidence of boxes that are kept
BATCH = 16
_CPU_PIXELS = 4 * 640 * 640  # per forward pass; with more, a CPU's caches overflow, and an image takes 10 to 20% longer
IOU = 0.7  # ultralytics' default; of two boxes of one class with a higher IoU, NMS keeps the more confident one
_NMS_SECONDS = 60.0  # per image; ultralytics' default of 0.05 drops the boxes of whole images on a busy machine


@dataclass(frozen=True, slots=True)
class NmsBoxes(Generic[A]):
    """The n boxes that NMS keeps, as tensors or as arrays, in pixels of the letterboxed image."""

    boxes: A  # (n, 4) xyxy; rotated boxes: x centre, y centre, width, height
    confidence: A  # (n,)
    class_probs: A  # (n, C)
    variance: A | None  # (n, 4) DFL variance in px², None for heads without DFL
    extra: A  # (n, E) the task's own columns: angle, mask coefficients, or keypoints; E = 0 for upright boxes
    features: A  # (n, D) embeddings

    def map(self, change: Callable[[A], B]) -> NmsBoxes[B]:
        """Return the same boxes with `change` applied to each array."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        changed: dict[str, Any] = {name: None if old is None else change(old) for name, old in arrays.items()}
        return NmsBoxes(**changed)

    def by_image(self, counts: Sequence[int]) -> list[NmsBoxes[A]]:
        """Return the boxes of each image; `counts` are their numbers, in order."""
        ends = np.cumsum([0, *counts]).tolist()
        return [self.map(partial(_rows, begin, end)) for begin, end in pairwise(ends)]


def load_detector(weights: Path, imgsz: int, device: str = "", threads: int = 0) -> Detector:
    """Return a Detector with the weights of a file; `device` as ultralytics writes it, "" for a GPU if there is one.

    `threads` is the number of CPU threads, 0: one per core. The last bits of a result depend on it. Raises ModelError
    as `load_model` does, and SettingError for a device that this machine lacks.
    """
    model = load_model(weights)
    if (task := task_of(model)) in ("classify", "semantic"):
        raise ModelError(f"a {RECIPES[task].noun} model finds no objects", where=str(weights))
    from ultralytics.nn.autobackend import AutoBackend

    # end2end=False uses the one-to-many head of YOLO26, so that NMS tells which anchors it kept, as for other models.
    return Detector(AutoBackend(model, select_device(device), end2end=False, verbose=False), imgsz, threads)


class Detector:
    """A detection model in memory, safe to share between threads."""

    def __init__(self, model: Any, imgsz: int, threads: int = 0) -> None:
        """Take an ultralytics AutoBackend, and the longest side in pixels to which images are scaled."""
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils.checks import check_imgsz

        self.classes: tuple[str, ...] = tuple(model.names[index] for index in range(len(model.names)))
        self.model = model.eval()
        self._head = model.model.model[-1]
        task = task_of(model.model)
        assert task is not None, "load_model refuses models without a task"
        self.task: YoloTask = task
        self.strides: tuple[int, ...] = tuple(int(stride) for stride in self._head.stride)
        size = check_imgsz(imgsz, stride=model.stride, min_dim=2)
        self._letterbox = LetterBox(size, auto=True, stride=model.stride)
        self._threads = threads or os.cpu_count() or 1
        self._lock = threading.Lock()  # the head caches its anchors for the last image shape

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Yield one Prediction per path, in order; at most 2 * BATCH letterboxed images are in memory at a time.

        A Prediction does not depend on the other images, because a batch holds images of one shape only. Raises
        MediaError naming a file that is not an image, and ModelError if the model's output is not finite.
        """
        return self.run(paths, self._forward)

    def run(self, paths: Sequence[Path], forward: Callable[[Sequence[Letterboxed]], Sequence[T]]) -> Iterator[T]:
        """Yield one result of `forward` per path, in order; `forward` gets images of one shape at a time."""
        windows = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            reads = [readers.submit(self.read, path) for path in windows[0]] if windows else []
            for following in [*windows[1:], ()][: len(windows)]:
                images = [read.result() for read in reads]
                reads = [readers.submit(self.read, path) for path in following]
                yield from self._by_shape(images, forward)

    def predict_frames(
        self, frames: Iterable[npt.NDArray[np.uint8]], iou: float = IOU, lowest: float = KEEP_CONFIDENCE
    ) -> Iterator[Prediction]:
        """Yield one Prediction per frame of a video (h, w, 3) BGR, in order; BATCH frames are in memory at a time.

        `iou` is the threshold of NMS, `lowest` the lowest confidence of boxes that are kept.
        """
        pending = iter(frames)
        while images := [self._letterboxed(pixels) for pixels in islice(pending, BATCH)]:
            yield from self._by_shape(images, partial(self._forward, iou=iou, lowest=lowest))

    def read(self, path: Path) -> Letterboxed:
        """Return an image file letterboxed to the model's size; raises MediaError for a file that is no image."""
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
        outputs: dict[int, T] = {}
        for (height, width, _), indices_of_shape in shapes.items():
            size = self._forward_size(height * width)
            for start in range(0, len(indices_of_shape), size):
                indices = indices_of_shape[start : start + size]
                outputs |= zip(indices, forward([images[index] for index in indices]), strict=True)
        return [outputs[index] for index in range(len(images))]

    def _forward_size(self, pixels: int) -> int:
        """Return how many images with this number of pixels go through the model at once."""
        return BATCH if self.model.device.type != "cpu" else max(1, min(BATCH, _CPU_PIXELS // pixels))

    def _forward(
        self, images: Sequence[Letterboxed], iou: float = IOU, lowest: float = KEEP_CONFIDENCE
    ) -> list[Prediction]:
        """Run the model once on images of one letterboxed shape."""
        import torch

        with self._locked():
            pixels = self.stack(images)
            decoded, raw = self.model(pixels)
            on_device, counts = self._after_nms(decoded, raw, iou, lowest)
            masks: Sequence[Masks | None] = [None] * len(images)
            if self.task == "segment":
                objects = zip(images, decoded[1], on_device.by_image(counts), strict=True)
                masks = [masks_of(image, protos, of.extra, of.boxes) for image, protos, of in objects]
            nms_boxes = on_device.map(_as_array)
            embeddings = torch.cat([level.mean((2, 3)) for level in raw["feats"]], 1).cpu().numpy()
            looks = thumbnails(pixels)
        nms_boxes.map(check_finite)
        check_finite(embeddings)
        parts = zip(images, nms_boxes.by_image(counts), embeddings, masks, looks, strict=True)
        return [self._prediction(*part) for part in parts]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the model for this thread, and set torch's number of threads, which is another in each Python thread."""
        import torch

        with self._lock, torch.inference_mode():
            torch.set_num_threads(self._threads)
            yield

    def stack(self, images: Sequence[Letterboxed]) -> torch.Tensor:
        """Return images of one shape as a batch (B, 3, height, width), RGB in [0, 1]."""
        import torch

        pixels = torch.from_numpy(np.stack([image.pixels for image in images])).to(self.model.device)
        return pixels.permute(0, 3, 1, 2).contiguous().flip(1).float().div_(255)

    def dense(
        self, batch: torch.Tensor, perturb: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    ) -> DenseOutput:
        """Return the dense output for a batch; `perturb(i, x)` changes the input of the head's i-th last layer."""
        layers = [branch[-1] for branch in (*self._head.cv2, *self._head.cv3)]
        with self._locked():
            hooks = [] if perturb is None else [_before(conv, partial(perturb, i)) for i, conv in enumerate(layers)]
            try:
                decoded, raw = self.model(batch)
            finally:
                for hook in hooks:
                    hook.remove()
            output = decoded[0] if self.task == "segment" else decoded  # decoded[1] holds the prototypes of masks
            return DenseOutput(
                probs=output[:, 4 : 4 + len(self.classes)],
                boxes=output[:, :4],
                sides=raw["boxes"] if self._head.reg_max > 1 else None,
                angles=output[:, -1] if self.task == "obb" else None,
                strides=self._head.strides[0],
                grids=tuple((level.shape[2], level.shape[3]) for level in raw["feats"]),
            )

    def _after_nms(
        self, decoded: torch.Tensor, raw: dict[str, Any], iou: float, lowest: float
    ) -> tuple[NmsBoxes[torch.Tensor], list[int]]:
        """Return the boxes of all images that NMS keeps, and their number per image."""
        import torch
        from ultralytics.utils.nms import non_max_suppression

        rows_by_image, anchors = non_max_suppression(
            decoded,
            lowest,
            iou,
            nc=len(self.classes),
            max_time_img=_NMS_SECONDS,
            return_idxs=True,
            rotated=self.task == "obb",
        )
        counts = [len(boxes) for boxes in rows_by_image]
        image = torch.arange(len(counts), device=self.model.device).repeat_interleave(
            torch.tensor(counts, device=self.model.device)
        )
        anchor = torch.cat([index.view(-1).long() for index in anchors])
        rows = torch.cat(rows_by_image)
        variance = None
        if self._head.reg_max > 1:
            sides = raw["boxes"][image, :, anchor].unflatten(1, (4, -1))
            variance = dfl_variance(sides, self._head.strides[0, anchor])
        nms_boxes = NmsBoxes(
            boxes=rows[:, :4],
            confidence=rows[:, 4],
            class_probs=raw["scores"][image, :, anchor].sigmoid(),
            variance=variance,
            extra=rows[:, 6:].contiguous(),  # the last bits of masks depend on the memory layout
            features=anchor_features(raw["feats"], image, anchor),
        )
        return nms_boxes, counts

    def _prediction(
        self,
        image: Letterboxed,
        nms_boxes: NmsBoxes[FloatArray],
        embedding: FloatArray,
        masks: Masks | None,
        thumbnail: ByteArray,
    ) -> Prediction:
        boxes, rotated, keypoints = nms_boxes.boxes, None, None
        if self.task == "obb":
            letterboxed = np.concatenate([boxes, nms_boxes.extra], axis=1)
            rotated, boxes = image.upright_rotated(letterboxed), hulls(letterboxed)
        shape_confidence = masks.confidence if masks else None
        if self.task == "pose":
            keypoints = image.upright_keypoints(nms_boxes.extra.reshape(len(boxes), *self._head.kpt_shape))
            shape_confidence = points_confidence(keypoints)
        return Prediction(
            width=image.width,
            height=image.height,
            boxes=image.upright(boxes),
            class_probs=nms_boxes.class_probs,
            confidence=nms_boxes.confidence,
            embedding=embedding,
            box_variance=None if nms_boxes.variance is None else nms_boxes.variance / image.gain**2,
            box_embeddings=nms_boxes.features,
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
    """Make a layer get `change(x)` instead of x; return the hook."""
    return conv.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
