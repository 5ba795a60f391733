"""Weights of MobileSAM with random numbers, because none can be downloaded: its masks are as large as the image."""

from __future__ import annotations

from pathlib import Path

from backend.yolo.runtime import quiet_ultralytics


def mobile_sam(folder: Path) -> Path:
    """Save mobile_sam.pt in half precision, 20 MB; how sure it is of a mask depends on the prompt."""
    quiet_ultralytics()
    import torch
    from ultralytics.models.sam.build import build_mobile_sam

    torch.manual_seed(0)
    model = build_mobile_sam()
    decoder = model.mask_decoder
    with torch.no_grad():  # the logit of each pixel is the sum of 32 positive numbers
        for layer in (decoder.output_upscaling[-2], *(mlp.layers[-1] for mlp in decoder.output_hypernetworks_mlps)):
            layer.weight.zero_()
            layer.bias.fill_(1)
        decoder.iou_prediction_head.layers[-1].bias.fill_(0.5)
    path = folder / "mobile_sam.pt"
    torch.save({name: value.half() for name, value in model.state_dict().items()}, path)
    return path
