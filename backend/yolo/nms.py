"""Non-maximum suppression: of the boxes of all anchors, those that stand for an object each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.yolo.box_arrays import BoxArrays
from backend.yolo.dense_head import anchor_features, dfl_variance

if TYPE_CHECKING:
    import torch

IOU = 0.7  # ultralytics' default; of two boxes of one class with a higher IoU, NMS keeps the more confident one
_NMS_SECONDS = 60.0  # per image; ultralytics' default of 0.05 drops the boxes of whole images on a busy machine


def after_nms(
    head: Any, decoded: torch.Tensor, raw: dict[str, Any], iou: float, lowest: float, *, rotated: bool
) -> tuple[BoxArrays[torch.Tensor], list[int]]:
    """Return the boxes of all images that NMS keeps, and their number per image.

    `decoded` and `raw` are the outputs of the model, `lowest` is the lowest confidence of boxes that are kept.
    """
    import torch
    from ultralytics.utils.nms import non_max_suppression

    rows_by_image, anchors = non_max_suppression(
        decoded, lowest, iou, nc=head.nc, max_time_img=_NMS_SECONDS, return_idxs=True, rotated=rotated
    )
    counts = [len(boxes) for boxes in rows_by_image]
    device = raw["scores"].device
    image = torch.arange(len(counts), device=device).repeat_interleave(torch.tensor(counts, device=device))
    anchor = torch.cat([index.view(-1).long() for index in anchors])
    rows = torch.cat(rows_by_image)
    variance = None
    if head.reg_max > 1:
        sides = raw["boxes"][image, :, anchor].unflatten(1, (4, -1))
        variance = dfl_variance(sides, head.strides[0, anchor])
    arrays = BoxArrays(
        boxes=rows[:, :4],
        confidence=rows[:, 4],
        class_probs=raw["scores"][image, :, anchor].sigmoid(),
        variance=variance,
        extra=rows[:, 6:].contiguous(),  # the last bits of masks depend on the memory layout
        features=anchor_features(raw["feats"], image, anchor),
    )
    return arrays, counts
