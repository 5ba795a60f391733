"""Images scaled and padded for a model, and coordinates converted back to pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.errors import MachineError, MediaError, is_out_of_memory
from backend.types import FloatArray


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """An image as the model gets it, and the size of the upright original."""

    pixels: npt.NDArray[np.uint8]  # (h, w, 3) BGR, letterboxed to the model's size
    height: int  # of the upright original
    width: int

    @property
    def gain(self) -> float:
        """Return the factor by which the original was scaled."""
        return min(self.pixels.shape[0] / self.height, self.pixels.shape[1] / self.width)

    def upright(self, boxes: FloatArray) -> FloatArray:
        """Return boxes xyxy (n, 4) converted to pixels of the original, and clipped to it."""
        from ultralytics.utils.ops import scale_boxes

        moved: FloatArray = scale_boxes(self.pixels.shape[:2], boxes.copy(), (self.height, self.width))
        return moved

    def upright_points(self, points: FloatArray) -> FloatArray:
        """Return points (k, 2) converted to pixels of the original, and clipped to it."""
        from ultralytics.utils.ops import scale_coords

        moved: FloatArray = scale_coords(self.pixels.shape[:2], points.copy(), (self.height, self.width))
        return moved

    def upright_keypoints(self, keypoints: FloatArray) -> FloatArray:
        """Return keypoints (n, K, 2 or 3) as those of a Prediction (n, K, 3); without visibility all are visible."""
        visibility = keypoints[:, :, 2:] if keypoints.shape[2] > 2 else np.ones_like(keypoints[:, :, :1])
        return np.concatenate([self.upright_points(keypoints[:, :, :2]), visibility], axis=2)

    def upright_rotated(self, rotated: FloatArray) -> FloatArray:
        """Return rotated boxes (n, 5) of a Prediction, converted to pixels of the original."""
        from ultralytics.utils.ops import scale_boxes

        moved: FloatArray = scale_boxes(self.pixels.shape[:2], rotated.copy(), (self.height, self.width), xywh=True)
        return moved


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image (h, w, 3) in BGR; raises MediaError naming a file that is not an image."""
    from ultralytics.utils.patches import imread

    try:
        pixels: npt.NDArray[np.uint8] | None = imread(path)
    except Exception as error:  # cv2.error and errors of the decoders, which all mean that the file is no image
        if is_out_of_memory(error):
            raise MachineError("no memory is left to decode an image", fix="give the machine more memory") from error
        raise MediaError(f"cannot decode the image: {error}", where=str(path), fix="replace the file") from error
    if pixels is None:
        raise MediaError("not an image that can be read", where=str(path), fix="replace the file")
    return pixels
