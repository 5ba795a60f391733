"""Committees: how far the members disagree, anchor by anchor, before NMS.

Measures take probabilities p (T, m, C) of T members for m anchors and C classes. The members are the last versions (a
snapshot ensemble), one model on changed images (test-time augmentation), or one model with parts of its head switched
off. The last is called "perturbation BALD" here: the heads of ultralytics are trained without dropout, so this is no
sample of a Bayesian posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.acquisition.aggregation import largest, top_mean, top_sum
from backend.acquisition.localization import blur
from backend.acquisition.pool import Committee, Pool
from backend.acquisition.registry import Values, acquisition
from backend.acquisition.uncertainty import binary_entropy
from backend.errors import ModelError

Floats = npt.NDArray[np.floating[Any]]
NEEDS = frozenset({"committee"})
COST = "K scorings for a committee of K"
TOP = 10  # anchors per image in `discrepancy` and `box_disagreement`
BLOCK = 32_768  # anchors at a time: the measures need float64, and a pool has millions of anchors
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1, where the logarithm is infinite


def bald(p: npt.ArrayLike) -> Values:
    """Return the mutual information h(mean_t p) − mean_t h(p) in nats: (T, ...) -> (...), 0 where all members agree.

    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011.

    >>> bald([[.9], [.5]]).round(4), bald([[.9], [.9]])
    (array([0.1017]), array([0.]))
    """
    p = np.asarray(p, dtype=np.float64)
    return np.asarray(np.maximum(binary_entropy(p.mean(axis=0)) - binary_entropy(p).mean(axis=0), 0.0))


def class_aleatoric(p: npt.ArrayLike) -> Values:
    """Return mean_t p(1 − p), the uncertainty that every member has: (T, ...) -> (...).

    The sum with `class_epistemic` is p̄(1 − p̄).

    >>> class_aleatoric([.9, .5]).round(2), class_epistemic([.9, .5]).round(2)
    (np.float64(0.17), np.float64(0.04))
    """
    p = np.asarray(p, dtype=np.float64)
    return np.asarray((p * (1.0 - p)).mean(axis=0))


def class_epistemic(p: npt.ArrayLike) -> Values:
    """Return var_t p, the uncertainty that more labels can remove: (T, ...) -> (...)."""
    return np.asarray(np.var(np.asarray(p, dtype=np.float64), axis=0))


def divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> Values:
    """Return ½[KL(p‖q) + KL(q‖p)] summed over Bernoulli classes, in nats: (..., C), (..., C) -> (...).

    Source: Elezi et al., Not All Labels Are Equal, CVPR 2022.

    >>> divergence([[.8], [.3]], [[.6], [.3]]).round(4)
    array([0.0981, 0.    ])
    """
    a, b = (np.clip(np.asarray(probs, dtype=np.float64), _EDGE, 1.0 - _EDGE) for probs in (p, q))
    logits = np.log(a) - np.log1p(-a) - np.log(b) + np.log1p(-b)
    return np.asarray((0.5 * (a - b) * logits).sum(axis=-1))


def discrepancy(p: npt.ArrayLike) -> Values:
    """Return mean_c (p_s − p_t)², averaged over all pairs of members: (T, m, C) -> (m,).

    Source: Yuan et al., Multiple Instance Active Learning for Object Detection, CVPR 2021. The paper trains two heads
    to disagree; the members of the committee take their place here.

    >>> discrepancy([[[.9, .1]], [[.5, .1]]]).round(2)
    array([0.08])
    """
    p = np.asarray(p, dtype=np.float64)
    if p.shape[-1] == 0:
        return np.zeros(p.shape[1])
    return np.asarray((2.0 * p.var(axis=0, ddof=1)).mean(axis=-1))


def z_score(values: npt.ArrayLike) -> Values:
    """Return (v − mean) / standard deviation over all values (m,), 0 where they are all the same.

    >>> z_score([1, 3]), z_score([.1, .1, .1]), z_score([])
    (array([-1.,  1.]), array([0., 0., 0.]), array([], dtype=float64))
    """
    v = np.asarray(values, dtype=np.float64)
    deviation = v.std() if len(v) else 0.0
    if deviation <= 1e-12 + 1e-9 * np.abs(v).max(initial=0.0):  # else rounding errors would be amplified
        return np.zeros(v.shape)
    return np.asarray((v - v.mean()) / deviation)


@acquisition(
    "bald",
    asks="where do confident members contradict each other?",
    needs=NEEDS,
    cost=COST,
    paper="Houlsby et al., 2011; for detectors Haussmann et al., Scalable Active Learning for Object Detection, 2020",
    when="two or more versions are published, and a scoring may take several times as long",
)
def image_bald(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the largest BALD over classes and anchors of each image (n,), nats."""
    committee = _committee(pool, "bald")
    values = _by_anchor(lambda p: bald(p).max(axis=1, initial=0.0), committee.member_probs)
    return largest(values, committee.offsets)


@acquisition(
    "choi",
    asks="is one of four uncertainties unusual for this pool: of class or box, within or between members?",
    needs=NEEDS,
    cost=COST,
    paper="Choi et al., Active Learning for Deep Object Detection via Probabilistic Modeling, ICCV 2021",
    when="you do not know whether the model errs on classes or on boxes",
    relative=True,
)
def image_choi(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the largest of the four `choi_uncertainties`, each z-scored over the pool's anchors (n,).

    A value tells how unusual an image is in this pool. Values of different pools cannot be compared.
    """
    committee = _committee(pool, "choi")
    scores = [largest(z_score(uncertainty), committee.offsets) for uncertainty in choi_uncertainties(committee)]
    return np.asarray(np.max(scores, axis=0))


def choi_uncertainties(committee: Committee) -> tuple[Values, ...]:
    """Return class aleatoric, class epistemic, box epistemic and, with DFL, box aleatoric uncertainty, each (m,).

    The value of an anchor is that of its most uncertain class or side.
    """
    uncertainties = [
        _by_anchor(lambda p: class_aleatoric(p).max(axis=1, initial=0.0), committee.member_probs),
        _by_anchor(lambda p: class_epistemic(p).max(axis=1, initial=0.0), committee.member_probs),
        _by_anchor(lambda boxes: boxes.var(axis=0).max(axis=1), committee.member_boxes),
    ]
    if committee.member_variance is not None:
        uncertainties.append(_by_anchor(lambda variance: variance.mean(axis=0).max(axis=1), committee.member_variance))
    return tuple(uncertainties)


@acquisition(
    "consistency",
    asks="does an uncertain prediction change on the mirror image?",
    needs=NEEDS,
    cost=COST,
    paper="Elezi et al., Not All Labels Are Equal, CVPR 2022; below random without its semi-supervised training",
    when="you compare with the literature; needs COMMITTEE=augmented",
)
def image_consistency(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return (largest h(s) of member 0) × (largest mean divergence of the others from member 0), by image (n,), nats².

    With test-time augmentation, member 0 predicts the image and member 1 its mirror image.
    """
    committee = _committee(pool, "consistency")
    uncertainty = _by_anchor(lambda p: binary_entropy(p[0].max(axis=1, initial=0.0)), committee.member_probs)
    change = _by_anchor(lambda p: divergence(p[:1], p[1:]).mean(axis=0), committee.member_probs)
    product = largest(uncertainty, committee.offsets) * largest(change, committee.offsets)
    has_anchors = np.diff(committee.offsets) > 0
    return largest(product[has_anchors], np.concatenate([[0], np.cumsum(has_anchors)]))


@acquisition(
    "discrepancy",
    asks="how much do the members differ on the anchors where they differ most?",
    needs=NEEDS,
    cost=COST,
    paper="after Yuan et al., Multiple Instance Active Learning for Object Detection, CVPR 2021, without its heads",
    when="as for bald, but one unusual anchor should not decide",
)
def image_discrepancy(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return the mean `discrepancy` of the top 10 anchors of each image (n,)."""
    committee = _committee(pool, "discrepancy")
    values = _by_anchor(discrepancy, committee.member_probs)
    return top_mean(values, committee.offsets, k=TOP)


@acquisition(
    "box_disagreement",
    asks="how far apart do the members draw each box?",
    needs=NEEDS,
    cost=COST,
    paper="after Choi et al., Active Learning for Deep Object Detection via Probabilistic Modeling, ICCV 2021",
    when="exact boxes matter more than classes; also for models without DFL",
)
def image_box_disagreement(pool: Pool, _rng: np.random.Generator) -> Values:
    """Return `blur` of the sides' variance over members, summed over the top 10 anchors of each image (n,), px."""
    committee = _committee(pool, "box_disagreement")
    if np.diff(committee.offsets).max(initial=0) == 1 and not np.ptp(committee.member_boxes, axis=0).any():
        raise ModelError(
            "strategy 'box_disagreement' needs boxes, and this committee predicts whole images",
            fix="use bald or discrepancy, which look at classes",
        )
    score = _by_anchor(lambda p: p.mean(axis=0).max(axis=1, initial=0.0), committee.member_probs)
    spread = _by_anchor(lambda boxes: blur(boxes.var(axis=0), np.ones(boxes.shape[1])), committee.member_boxes)
    return top_sum(score * spread, committee.offsets, k=TOP)


def _committee(pool: Pool, strategy: str) -> Committee:
    """Return the pool's committee; raises ModelError where it has none."""
    if pool.committee is None:
        raise ModelError(
            f"strategy {strategy!r} needs committee, the predictions of two or more models for the pool",
            fix="use COMMITTEE=augmented, or COMMITTEE=snapshots once two versions are published, or another strategy",
        )
    return pool.committee


def _by_anchor(measure: Callable[[Floats], Floats], members: Floats) -> Values:
    """Return a measure (T, b, ...) -> (b,) of all anchors (m,), computed block by block in float64."""
    starts = range(0, members.shape[1], BLOCK)
    blocks = [measure(members[:, start : start + BLOCK].astype(np.float64)) for start in starts]
    return np.concatenate([np.zeros(0), *blocks])
