"""What a video shows, frame by frame, by what is before and after: an LSTM over the embeddings of its frames.

It is made of torch's own modules, so weights that carry it open where this package is not installed.
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

_BATCH = 32  # sequences of one optimiser step
_LR = 3e-3
_DECAY = 1e-2  # of the weights: there are few videos, and many dimensions
_LEAST_SPREAD = 0.1  # of the dimensions' mean variance


@dataclass(frozen=True, slots=True)
class Epoch:
    """How an epoch (the first is 1) went: what was said of the training sequences while it learned from them."""

    number: int
    loss: float  # mean
    f1: float  # mean over the labels that there are
    accuracy: float  # share of the answers, one for each label of each frame, that are right


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
    """Learn from videos, of each the embeddings of its frames (n, D) and their labels (n, L); one frame there must be.

    `minutes` is the budget of time, 0: none. What `on_epoch` raises ends the training. Of a seed follow the weights.
    """
    import torch

    net = _net(videos, options, seed).to(device)
    windows = [
        (torch.from_numpy(seen[part]), torch.from_numpy(labels[part]).float())
        for seen, labels in videos
        for part in sequence_slices(len(seen), options.sequence_size)
    ]
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LR, weight_decay=_DECAY)
    chance = torch.Generator().manual_seed(seed)
    ends = time.monotonic() + minutes * 60 if minutes else math.inf
    for number in range(1, options.epochs + 1):
        order = torch.randperm(len(windows), generator=chance).tolist()
        last = _epoch(net, optimizer, [windows[index] for index in order], number)
        on_epoch(last)
        if (last.f1 >= options.f1_threshold and last.accuracy >= options.accuracy_threshold) or time.monotonic() > ends:
            break
    return Fitted(net.cpu().eval().requires_grad_(False), last)


def probabilities(net: Any, embeddings: FloatArray) -> FloatArray:
    """Return the probabilities of the labels (n, L) of a video's frames (n, D), each label a question of its own.

    A frame's are the mean over the sequences that it is in.
    """
    import torch

    device = net["labels"].weight.device
    sums = np.zeros((len(embeddings), net["labels"].out_features), np.float32)
    counts = np.zeros((len(embeddings), 1), np.float32)
    left = iter(sequence_slices(len(embeddings), net.sequence_size))
    with torch.inference_mode():
        while parts := list(islice(left, _BATCH)):
            said = _logits(net, [torch.from_numpy(embeddings[part]).to(device) for part in parts])
            for part, logits in zip(parts, torch.nn.utils.rnn.unpack_sequence(said), strict=True):
                sums[part] += logits.sigmoid().cpu().numpy()
                counts[part] += 1
    return np.asarray(sums / np.maximum(counts, 1))


def _net(videos: Sequence[tuple[FloatArray, BoolArray]], options: LstmOptions, seed: int) -> Any:
    """Return an LSTM that knows nothing yet but the mean and the spread of each dimension."""
    import torch
    from torch import nn

    seen = np.concatenate([embeddings for embeddings, _ in videos])
    hidden = options.hidden_size
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the one generator of all
        torch.default_generator.manual_seed(seed)
        net: Any = nn.ModuleDict(
            {
                "scale": nn.BatchNorm1d(seen.shape[1], affine=False),
                "narrow": nn.Linear(seen.shape[1], hidden),
                # Both ways: how something begins is seen only in what comes of it, and the whole video is there.
                "lstm": nn.LSTM(hidden, hidden, options.num_layers, bidirectional=True),
                "labels": nn.Linear(2 * hidden, videos[0][1].shape[1]),
            }
        )
    net["scale"].running_mean.copy_(torch.from_numpy(seen.mean(axis=0)))
    # A dimension that hardly moves in these videos may move in others, and must not drown the rest there.
    spread = seen.var(axis=0)
    net["scale"].running_var.copy_(torch.from_numpy(np.maximum(spread, _LEAST_SPREAD * spread.mean())))
    net["scale"].eval()  # it must not learn; the LSTM stays in training, for cuDNN goes backward in no other mode
    net.sequence_size = options.sequence_size
    return net


def sequence_slices(frames: int, size: int) -> Iterator[slice]:
    """Yield sequences of `size` frames, the next from the middle of the one before, that hold all of a video's.

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
    """Return what a net says of sequences (n, D) of any lengths, packed: (n, L) each."""
    from torch.nn.utils.rnn import PackedSequence, pack_sequence

    packed = pack_sequence(list(windows), enforce_sorted=False)
    found: PackedSequence = net["lstm"](packed._replace(data=net["narrow"](net["scale"](packed.data))))[0]
    return found._replace(data=net["labels"](found.data))


def _epoch(net: Any, optimizer: Any, windows: Sequence[tuple[torch.Tensor, torch.Tensor]], number: int) -> Epoch:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.nn.utils.rnn import pack_sequence

    device, loss_sum = net["labels"].weight.device, 0.0
    said, true = [], []
    for start in range(0, len(windows), _BATCH):
        seen, labels = zip(*windows[start : start + _BATCH], strict=True)
        logits = _logits(net, [each.to(device) for each in seen]).data
        wanted = pack_sequence(list(labels), enforce_sorted=False).data.to(device)
        loss: Any = binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(wanted)
        said.append((logits.detach() > 0).cpu())
        true.append(wanted.bool().cpu())
    answers, wanted_answers = torch.cat(said).numpy(), torch.cat(true).numpy()
    accuracy = float((answers == wanted_answers).mean())
    return Epoch(number, loss_sum / len(answers), f1_of(answers, wanted_answers), accuracy)


def f1_of(said: BoolArray, true: BoolArray) -> float:
    """Return the mean F1 of (n, L) answers over the labels that are said or true, 1 where there are none.

    >>> f1_of(np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [0, 0]], bool))  # 2 * 1 / (2 + 1)
    0.6666666666666666
    """
    both, either = (said & true).sum(axis=0), said.sum(axis=0) + true.sum(axis=0)
    known = either > 0
    return float((2 * both[known] / either[known]).mean()) if known.any() else 1.0
