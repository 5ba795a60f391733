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
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from backend.errors import ModelError
from backend.types import FloatArray, Prediction, YoloTask
from backend.yolo.box_arrays import BoxArrays, as_array, prediction_of
from backend.yolo.candidates import Candidates, before_nms
from backend.yolo.decoding import Masks, masks_of
from backend.yolo.dense_head import DenseOutput
from backend.yolo.letterbox import Letterboxed, read_pixels
from backend.yolo.nms import IOU, after_nms
from backend.yolo.runtime import check_finite, load_model, select_device, task_of
from backend.yolo.tasks import RECIPES
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

KEEP_CONFIDENCE = 0.05  # the lowest confidence of boxes that are kept
BATCH = 16
_CPU_PIXELS = 4 * 640 * 640  # per forward pass; with more, a CPU's caches overflow, and an image takes 10 to 20% longer


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
        self._point_shape: tuple[int, ...] = tuple(getattr(self._head, "kpt_shape", ()))
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
            on_device, counts = after_nms(self._head, decoded, raw, iou, lowest, rotated=self.task == "obb")
            masks: Sequence[Masks | None] = [None] * len(images)
            if self.task == "segment":
                objects = zip(images, decoded[1], on_device.by_image(counts), strict=True)
                masks = [masks_of(image, protos, of.extra, of.boxes) for image, protos, of in objects]
            nms_boxes = on_device.map(as_array)
            embeddings = torch.cat([level.mean((2, 3)) for level in raw["feats"]], 1).cpu().numpy()
            looks = thumbnails(pixels)
        nms_boxes.map(check_finite)
        check_finite(embeddings)
        parts = zip(images, nms_boxes.by_image(counts), embeddings, masks, looks, strict=True)
        return [prediction_of(self.task, self._point_shape, *part) for part in parts]

    def candidates(self, path: Path) -> Candidates:
        """Return all boxes that the model sees in an image before NMS; raises as `predict`."""
        image = self.read(path)
        with self._locked():
            pixels = self.stack([image])
            decoded, _ = self.model(pixels)
            return before_nms(self.task, len(self.classes), image, decoded, self._prediction)

    def _prediction(self, image: Letterboxed, arrays: BoxArrays[FloatArray], masks: Masks | None) -> Prediction:
        nothing = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.uint8)
        return prediction_of(self.task, self._point_shape, image, arrays, nothing[0], masks, nothing[1])

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


def _before(conv: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Make a layer get `change(x)` instead of x; return the hook."""
    return conv.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
