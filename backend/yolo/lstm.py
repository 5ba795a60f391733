"""An LSTM over the embeddings of a video's frames, which uses the frames before and after each frame.

It consists of torch's own modules, so weights files with it can be opened where this package is not installed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.types import BoolArray, FloatArray, LstmOptions

if TYPE_CHECKING:
    import torch

_BATCH = 32  # sequences per optimiser step
_LR = 3e-3
_DECAY = 1e-2  # weight decay, because there are few videos and many dimensions
_LEAST_SPREAD = 0.1  # lowest variance of a dimension, as a share of the mean variance of all dimensions


@dataclass(frozen=True, slots=True)
class Epoch:
    """The results of an epoch (the first is 1) on the training sequences, measured while it learned from them."""

    number: int
    loss: float  # mean
    f1: float  # mean over the labels that occur
    accuracy: float  # share of right answers, one answer for each label of each frame


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained LSTM."""

    net: Any  # torch.nn.ModuleDict
    last: Epoch


def train(
    videos: Sequence[tuple[FloatArray, BoolArray]],
    options: LstmOptions,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    *,
    device: str | torch.device = "cpu",
    minutes: float = 0.0,
) -> Fitted:
    """Train an LSTM on videos, each with the embeddings (n, D) and the labels (n, L) of its frames.

    There must be at least one frame. `minutes` limits the time, 0: no limit. An exception of `on_epoch` ends the
    training. The same seed gives the same weights.
    """
    import torch

    net = _net(videos, options, seed).to(device)
    windows = [
        (torch.from_numpy(embeddings[part]), torch.from_numpy(labels[part]).float())
        for embeddings, labels in videos
        for part in sequence_slices(len(embeddings), options.sequence_size)
    ]
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LR, weight_decay=_DECAY)
    chance = torch.Generator().manual_seed(seed)
    ends = time.monotonic() + minutes * 60 if minutes else math.inf
    for number in range(1, options.epochs + 1):
        order = torch.randperm(len(windows), generator=chance).tolist()
        result = _epoch(net, optimizer, [windows[index] for index in order], number)
        on_epoch(result)
        good_enough = result.f1 >= options.f1_threshold and result.accuracy >= options.accuracy_threshold
        if good_enough or time.monotonic() > ends:
            break
    return Fitted(net.cpu().eval().requires_grad_(False), result)


def probabilities(net: Any, embeddings: FloatArray) -> FloatArray:
    """Return the label probabilities (n, L) of a video's frames, from their embeddings (n, D).

    Each label is predicted by itself, so a frame may have several.
    The probabilities of a frame are the mean over the sequences with this frame.
    """
    import torch

    device = net["labels"].weight.device
    sums = np.zeros((len(embeddings), net["labels"].out_features), np.float32)
    counts = np.zeros((len(embeddings), 1), np.float32)
    pending = iter(sequence_slices(len(embeddings), net.sequence_size))
    with torch.inference_mode():
        while parts := list(islice(pending, _BATCH)):
            packed = _logits(net, [torch.from_numpy(embeddings[part]).to(device) for part in parts])
            for part, logits in zip(parts, torch.nn.utils.rnn.unpack_sequence(packed), strict=True):
                sums[part] += logits.sigmoid().cpu().numpy()
                counts[part] += 1
    return np.asarray(sums / np.maximum(counts, 1))


def _net(videos: Sequence[tuple[FloatArray, BoolArray]], options: LstmOptions, seed: int) -> Any:
    """Return an untrained LSTM that normalises its inputs by the mean and the variance of each dimension."""
    import torch
    from torch import nn

    frames = np.concatenate([embeddings for embeddings, _ in videos])
    hidden = options.hidden_size
    with torch.random.fork_rng(devices=[]):  # layers draw their initial weights from torch's global generator
        torch.default_generator.manual_seed(seed)
        net: Any = nn.ModuleDict(
            {
                "scale": nn.BatchNorm1d(frames.shape[1], affine=False),
                "narrow": nn.Linear(frames.shape[1], hidden),
                # In both directions: later frames tell how an action began, and the whole video is available.
                "lstm": nn.LSTM(hidden, hidden, options.num_layers, bidirectional=True),
                "labels": nn.Linear(2 * hidden, videos[0][1].shape[1]),
            }
        )
    net["scale"].running_mean.copy_(torch.from_numpy(frames.mean(axis=0)))
    # A dimension that hardly varies in these videos may vary in others, and must not dominate the others there.
    spread = frames.var(axis=0)
    net["scale"].running_var.copy_(torch.from_numpy(np.maximum(spread, _LEAST_SPREAD * spread.mean())))
    net["scale"].eval()  # its statistics are fixed; the LSTM stays in training mode, which cuDNN needs for gradients
    net.sequence_size = options.sequence_size
    return net


def sequence_slices(frames: int, size: int) -> Iterator[slice]:
    """Yield sequences of `size` frames that cover a video; each starts in the middle of the sequence before it.

    >>> [(part.start, part.stop) for part in sequence_slices(11, 4)]
    [(0, 4), (2, 6), (4, 8), (6, 10), (7, 11)]
    >>> [(part.start, part.stop) for part in sequence_slices(3, 4)]
    [(0, 3)]
    """
    step = max(1, size // 2)
    for start in range(0, max(frames - size, 0) + step, step) if frames else ():
        begin = max(0, min(start, frames - size))
        yield slice(begin, min(begin + size, frames))


def _logits(net: Any, windows: Sequence[torch.Tensor]) -> torch.nn.utils.rnn.PackedSequence:
    """Return a net's logits (n, L) for each of several sequences (n, D), packed; their lengths may differ."""
    from torch.nn.utils.rnn import PackedSequence, pack_sequence

    packed = pack_sequence(list(windows), enforce_sorted=False)
    outputs: PackedSequence = net["lstm"](packed._replace(data=net["narrow"](net["scale"](packed.data))))[0]
    return outputs._replace(data=net["labels"](outputs.data))


def _epoch(net: Any, optimizer: Any, windows: Sequence[tuple[torch.Tensor, torch.Tensor]], number: int) -> Epoch:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.nn.utils.rnn import pack_sequence

    device, loss_sum = net["labels"].weight.device, 0.0
    answers_by_batch, true = [], []
    for start in range(0, len(windows), _BATCH):
        embeddings, labels = zip(*windows[start : start + _BATCH], strict=True)
        logits = _logits(net, [window.to(device) for window in embeddings]).data
        targets = pack_sequence(list(labels), enforce_sorted=False).data.to(device)
        loss: Any = binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(targets)
        answers_by_batch.append((logits.detach() > 0).cpu())
        true.append(targets.bool().cpu())
    answers, wanted_answers = torch.cat(answers_by_batch).numpy(), torch.cat(true).numpy()
    accuracy = float((answers == wanted_answers).mean())
    return Epoch(number, loss_sum / len(answers), f1_of(answers, wanted_answers), accuracy)


def f1_of(answers: BoolArray, true: BoolArray) -> float:
    """Return the mean F1 of answers (n, L) over the labels that occur in `answers` or `true`, 1 if none occurs.

    >>> f1_of(np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [0, 0]], bool))  # 2 * 1 / (2 + 1)
    0.6666666666666666
    """
    both, either = (answers & true).sum(axis=0), answers.sum(axis=0) + true.sum(axis=0)
    present = either > 0
    return float((2 * both[present] / either[present]).mean()) if present.any() else 1.0
