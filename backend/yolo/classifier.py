"""Classifiers of whole images: a Prediction has one box, the whole image, with the probabilities of all classes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from backend.types import ByteArray, FloatArray, Prediction, YoloTask
from backend.yolo.detector import BATCH
from backend.yolo.letterbox import read_pixels
from backend.yolo.runtime import check_finite, select_device
from backend.yolo.thumbnails import thumbnails

if TYPE_CHECKING:
    import torch

TEMPORAL = "temporal"  # the attribute of a model that holds an LSTM over the embeddings of frames
MULTIPLE = "multiple"  # in a data.yaml, and in the yaml of a model: an image may have several classes


class Classifier:
    """A classifier in memory, safe to share between threads."""

    task: YoloTask = "classify"
    strides: tuple[int, ...] = (32,)  # the model uses all pixels of an image whose sides are multiples of it

    def __init__(self, model: Any, imgsz: int, device: str = "") -> None:
        """Take an ultralytics ClassificationModel and the side, in pixels, of the square that images are scaled to."""
        from torchvision import transforms

        self.classes: tuple[str, ...] = tuple(model.names[index] for index in range(len(model.names)))
        self.multiple = bool(model.yaml.get(MULTIPLE, False))
        self.temporal = getattr(model, TEMPORAL, None)
        self._device = select_device(device)
        self._model = model.to(self._device).eval()
        # ultralytics crops to the centre, but the decisive part of an image may lie at its border.
        self._transform = transforms.Compose([transforms.Resize((imgsz, imgsz)), transforms.ToTensor()])
        self._lock = threading.Lock()

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Yield one Prediction per path, in order.

        Raises MediaError naming a file that is not an image, and ModelError if the model's output is not finite.
        """
        for batch, sizes in self.batches(paths):
            yield from self._predictions(batch, sizes)

    def predict_frames(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Prediction]:
        """Yield one Prediction per frame of a video (h, w, 3) BGR, in order; BATCH frames are in memory at a time."""
        pending = iter(frames)
        while scaled := [self._scaled(pixels) for pixels in islice(pending, BATCH)]:
            yield from self._predictions(*self._stacked(scaled))

    def batches(self, paths: Sequence[Path]) -> Iterator[tuple[torch.Tensor, list[tuple[int, int]]]]:
        """Yield batches (B, 3, side, side), with the width and height of each of their images; raises as `predict`."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for start in range(0, len(paths), BATCH):
                yield self._stacked(list(readers.map(self._read, paths[start : start + BATCH])))

    def _stacked(self, read: Sequence[tuple[Any, tuple[int, int]]]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        import torch

        return torch.stack([pixels for pixels, _ in read]).to(self._device), [size for _, size in read]

    def _predictions(self, batch: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        arrays = (values.float().cpu().numpy() for values in self.forward(batch))
        probs, embeddings = (check_finite(values) for values in arrays)
        for size, *columns in zip(sizes, probs, embeddings, thumbnails(batch), strict=True):
            yield _prediction(size, *columns)

    def _read(self, path: Path) -> tuple[Any, tuple[int, int]]:
        return self._scaled(read_pixels(path))

    def _scaled(self, pixels: npt.NDArray[np.uint8]) -> tuple[Any, tuple[int, int]]:
        from PIL import Image

        height, width = pixels.shape[:2]
        return self._transform(Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))), (width, height)

    def forward(
        self, batch: torch.Tensor, perturb: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities (B, C) and the embeddings (B, D) of a batch.

        The embeddings are the inputs of the last layer; `perturb(x)` changes them before the layer gets them.
        """
        import torch

        embeddings: list[torch.Tensor] = []

        def keep_input(_: Any, inputs: Any) -> Any:
            embeddings.append(inputs[0])
            return inputs if perturb is None else (perturb(inputs[0]),)

        with self._lock, torch.inference_mode():
            hook = self._model.model[-1].linear.register_forward_pre_hook(keep_input)
            try:
                probs, logits = self._model(batch)
            finally:
                hook.remove()
            return logits.sigmoid() if self.multiple else probs, embeddings[0]


def _prediction(size: tuple[int, int], probs: FloatArray, embedding: FloatArray, thumbnail: ByteArray) -> Prediction:
    return Prediction(
        width=size[0],
        height=size[1],
        boxes=np.array([[0, 0, *size]], dtype=np.float32),
        class_probs=probs[None],
        confidence=probs.max(keepdims=True),
        embedding=embedding,
        box_embeddings=embedding[None],
        thumbnail=thumbnail,
    )
