"""All boxes that a detector sees in an image, before NMS keeps the best: one of them is where an annotator points."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from backend.types import FloatArray, Prediction, YoloTask
from backend.yolo.box_arrays import BoxArrays, as_array
from backend.yolo.decoding import Masks, masks_of
from backend.yolo.letterbox import Letterboxed
from backend.yolo.runtime import check_finite

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LOWEST = 0.01  # of the likeliest class; boxes with less show background
MOST = 16  # images that a LastImages keeps; each takes some megabytes

Encode = Callable[[Letterboxed, BoxArrays[FloatArray], Masks | None], Prediction]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The n boxes of an image before NMS, many for each object."""

    prediction: Prediction  # without masks
    _image: Letterboxed
    _boxes: BoxArrays[torch.Tensor]
    _protos: torch.Tensor | None  # the prototypes of masks, where the model has masks
    _encode: Encode

    def object_at(self, row: int) -> Prediction:
        """Return one of the boxes, with its mask where the model has masks."""
        import torch

        box = self._boxes.rows(row, row + 1)
        with torch.inference_mode():
            masks = None if self._protos is None else masks_of(self._image, self._protos, box.extra, box.boxes)
        return self._encode(self._image, box.map(as_array), masks)


def before_nms(
    task: YoloTask,
    classes: int,
    image: Letterboxed,
    decoded: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    encode: Encode,
) -> Candidates:
    """Return the candidates in a model's decoded output for one image; raises ModelError if it is not finite."""
    import torch
    from ultralytics.utils.ops import xywh2xyxy

    output, protos = (decoded, None) if isinstance(decoded, torch.Tensor) else (decoded[0], decoded[1][0].cpu())
    rows = output[0].T.cpu()  # (A, 4 + C + E)
    confidence = rows[:, 4 : 4 + classes].amax(1)
    rows, confidence = rows[~(confidence < LOWEST)], confidence[~(confidence < LOWEST)]  # keeps what is not finite
    boxes = BoxArrays(
        boxes=rows[:, :4] if task == "obb" else xywh2xyxy(rows[:, :4]),
        confidence=confidence,
        class_probs=rows[:, 4 : 4 + classes],
        variance=None,
        extra=rows[:, 4 + classes :].contiguous(),
        features=rows[:, :0],
    )
    arrays = boxes.map(as_array)
    arrays.map(check_finite)
    return Candidates(encode(image, arrays, None), image, boxes, protos, encode)


class LastImages(Generic[T]):
    """What was computed for the last `most` images; safe to share between threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of a key, computed where it is not there; two threads may compute the same value."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = compute()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
