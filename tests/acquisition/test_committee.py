"""Committee strategies: worked examples of the measures, and properties that hold for any committee."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend import acquisition
from backend.acquisition.committee import (
    bald,
    choi_uncertainties,
    class_aleatoric,
    class_epistemic,
    discrepancy,
    divergence,
    z_score,
)
from backend.acquisition.pool import Committee, Pool
from backend.errors import ModelError

STRATEGIES = ("bald", "choi", "consistency", "discrepancy", "box_disagreement")
DISAGREEMENTS = ("bald", "consistency", "discrepancy", "box_disagreement")


def make_committee(counts: list[int], classes: int = 4, members: int = 3, seed: int = 0, dfl: bool = True) -> Committee:
    rng = np.random.default_rng(seed)
    m = sum(counts)
    return Committee(
        offsets=np.cumsum([0, *counts]).astype(np.int64),
        member_probs=rng.random((members, m, classes), dtype=np.float32),
        member_boxes=100 * rng.random((members, m, 4), dtype=np.float32),
        member_variance=9 * rng.random((members, m, 4), dtype=np.float32) if dfl else None,
    )


def agreeing(counts: list[int], classes: int = 4, members: int = 3, seed: int = 0) -> Committee:
    committee = make_committee(counts, classes, 2, seed)
    return Committee(
        committee.offsets,
        *(
            np.repeat(member_array[:1], members, axis=0)
            for member_array in (committee.member_probs, committee.member_boxes)
        ),
    )


def pool_with(committee: Committee | None, images: int | None = None) -> Pool:
    """Return a pool without boxes after NMS; a committee has its own anchors."""
    n = len(committee.offsets) - 1 if committee is not None else images or 0
    return Pool(
        np.arange(n, dtype=np.int64), np.zeros(n + 1, np.int64), np.zeros((0, 4), np.float32), committee=committee
    )


def values(name: str, committee: Committee) -> npt.NDArray[Any]:
    return acquisition.get(name)(pool_with(committee), np.random.default_rng(0))


def opinions(*images: list[list[list[float]]]) -> Committee:
    """Return a committee with equal boxes from class scores by image, member and anchor."""
    probs = np.concatenate([np.array(image, dtype=np.float32) for image in images], axis=1)
    boxes = np.zeros((*probs.shape[:2], 4), dtype=np.float32)
    return Committee(np.cumsum([0, *(len(image[0]) for image in images)]).astype(np.int64), probs, boxes)


# The measures


def test_worked_examples() -> None:
    assert bald([0.9, 0.5]) == pytest.approx(0.1017, abs=5e-5)
    assert class_aleatoric([0.9, 0.5]) == pytest.approx(0.17)
    assert class_epistemic([0.9, 0.5]) == pytest.approx(0.04)
    assert class_aleatoric([0.9, 0.5]) + class_epistemic([0.9, 0.5]) == pytest.approx(0.7 * 0.3)
    assert divergence([0.8], [0.6]) == pytest.approx(0.0981, abs=5e-5)
    assert discrepancy([[[0.9]], [[0.5]]]) == pytest.approx([0.16])


PROBS = arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(0, 4), st.integers(0, 3)), elements=st.floats(0, 1))


@given(PROBS)
@settings(max_examples=60, deadline=None)
def test_disagreement_is_between_zero_and_the_whole_uncertainty(p: npt.NDArray[np.float64]) -> None:
    assert bald(p).shape == p.shape[1:]
    assert (bald(p) >= 0).all()
    assert (bald(p) <= np.log(2) + 1e-12).all()
    doubt = p.mean(axis=0) * (1 - p.mean(axis=0))
    assert class_aleatoric(p) + class_epistemic(p) == pytest.approx(doubt, abs=1e-12)
    assert (discrepancy(p) >= 0).all()


@given(PROBS)
@settings(max_examples=60, deadline=None)
def test_members_that_agree_have_no_disagreement(p: npt.NDArray[np.float64]) -> None:
    same = np.repeat(p[:1], 3, axis=0)
    assert bald(same) == pytest.approx(np.zeros(p.shape[1:]), abs=1e-12)
    assert class_epistemic(same) == pytest.approx(np.zeros(p.shape[1:]), abs=1e-12)
    assert discrepancy(same) == pytest.approx(np.zeros(p.shape[1]), abs=1e-12)
    assert divergence(same[0], same[1]).tolist() == [0.0] * p.shape[1]


@given(PROBS)
@settings(max_examples=60, deadline=None)
def test_measures_do_not_depend_on_the_order_of_members(p: npt.NDArray[np.float64]) -> None:
    assert bald(p[::-1]) == pytest.approx(bald(p), abs=1e-12)
    assert discrepancy(p[::-1]) == pytest.approx(discrepancy(p), abs=1e-12)
    assert divergence(p[0], p[1]) == pytest.approx(divergence(p[1], p[0]), abs=1e-9)


def test_discrepancy_is_the_mean_over_pairs() -> None:
    p = np.random.default_rng(0).random((4, 5, 3))
    pairs = [((p[s] - p[t]) ** 2).mean(axis=-1) for s in range(4) for t in range(s)]
    assert discrepancy(p) == pytest.approx(np.mean(pairs, axis=0))


def test_certain_members_that_contradict_each_other_are_finite() -> None:
    assert bald([0.0, 1.0]) == pytest.approx(np.log(2))
    assert np.isfinite(divergence([0.0], [1.0]))
    assert divergence([0.0], [1.0]) > divergence([0.1], [0.9])


def test_rounding_is_no_outlier() -> None:
    assert z_score([0.0, 1e-26, 3e-26]).tolist() == [0.0, 0.0, 0.0]
    assert z_score([1e6, 1e6 + 1e-9]).tolist() == [0.0, 0.0]
    assert z_score([0.0, 0.01]).tolist() == [-1.0, 1.0]


# The strategies


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "committee",
    [
        make_committee([3, 5, 1, 2]),
        make_committee([3, 5, 1, 2], dfl=False),
        make_committee([3, 5, 1], classes=1),
        make_committee([12, 16, 16], classes=80, members=2),
        make_committee([2]),
        make_committee([0, 4, 0]),
        make_committee([0, 0]),
        make_committee([0, 0], classes=0),
        make_committee([]),
        agreeing([3, 0, 2]),
    ],
    ids=[
        "usual",
        "no DFL",
        "one class",
        "80 classes",
        "one image",
        "some empty",
        "no anchors",
        "unknown",
        "none",
        "ok",
    ],
)
def test_one_finite_value_per_image(name: str, committee: Committee) -> None:
    scores = values(name, committee)
    assert scores.shape == (len(committee.offsets) - 1,)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", DISAGREEMENTS)
@pytest.mark.parametrize("members", [2, 3, 5])
def test_a_committee_that_agrees_scores_nothing(name: str, members: int) -> None:
    assert values(name, agreeing([3, 0, 7, 2], members=members)) == pytest.approx(np.zeros(4), abs=1e-9)


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_a_committee_the_need_is_named(name: str) -> None:
    pool = pool_with(None, images=3)
    for function in (acquisition.get(name), acquisition.get(name).function):
        with pytest.raises(ModelError, match="committee"):
            function(pool, np.random.default_rng(0))
    assert acquisition.get(name).needs == {"committee"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_permuting_the_images_permutes_the_values(name: str) -> None:
    counts, order = [3, 0, 5, 1, 4], [4, 2, 0, 1, 3]
    committee = make_committee(counts)
    rows = np.concatenate([np.arange(committee.offsets[i], committee.offsets[i + 1]) for i in order])
    assert committee.member_variance is not None
    moved = Committee(
        np.cumsum([0, *(counts[i] for i in order)]).astype(np.int64),
        committee.member_probs[:, rows],
        committee.member_boxes[:, rows],
        committee.member_variance[:, rows],
    )
    assert values(name, moved) == pytest.approx(values(name, committee)[order], rel=1e-6)


@pytest.mark.parametrize("name", ["bald", "consistency", "discrepancy", "choi"])
def test_the_image_where_members_differ_comes_first(name: str) -> None:
    differ = [[[0.9, 0.1], [0.1, 0.1]], [[0.3, 0.1], [0.1, 0.1]]]
    near = [[[0.6, 0.1], [0.1, 0.1]], [[0.55, 0.1], [0.1, 0.1]]]
    agree = [[[0.7, 0.1]], [[0.7, 0.1]]]
    scores = values(name, opinions(near, differ, agree))
    assert scores.argmax() == 1
    assert scores[2] <= scores[0]


def test_image_bald_is_the_largest_of_classes_and_anchors() -> None:
    committee = opinions([[[0.9, 0.2], [0.6, 0.1]], [[0.5, 0.2], [0.5, 0.1]]])
    assert values("bald", committee) == pytest.approx([0.1017], abs=5e-5)


def test_blocks_of_anchors_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    committee = make_committee([7, 9, 3])
    whole = [values(name, committee) for name in STRATEGIES]
    monkeypatch.setattr("backend.acquisition.committee.BLOCK", 4)
    for name, expected in zip(STRATEGIES, whole, strict=True):
        assert values(name, committee) == pytest.approx(expected, rel=1e-12)


def test_choi_has_four_uncertainties_with_dfl_and_three_without() -> None:
    assert len(choi_uncertainties(make_committee([3]))) == 4
    assert len(choi_uncertainties(make_committee([3], dfl=False))) == 3


def test_choi_finds_images_unusual_in_any_uncertainty() -> None:
    plain = agreeing([2] * 6)
    for field in ("member_probs", "member_boxes", "member_variance"):
        parts: dict[str, Any] = {
            "member_probs": np.full_like(plain.member_probs, 0.9),
            "member_boxes": np.zeros_like(plain.member_boxes),
            "member_variance": np.ones_like(plain.member_boxes),
        }
        parts[field] = parts[field].copy()
        parts[field][0, 6] += 0.05 if field == "member_probs" else 20.0
        scores = values("choi", Committee(plain.offsets, **parts))
        assert scores.argmax() == 3, field


def test_consistency_needs_uncertainty_and_change() -> None:
    doubt_only = [[[0.5]], [[0.5]]]
    change_only = [[[1.0]], [[0.8]]]
    both = [[[0.5]], [[0.3]]]
    scores = values("consistency", opinions(doubt_only, change_only, both))
    assert scores[:2] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert scores[2] == pytest.approx(np.log(2) * divergence([0.5], [0.3]), rel=1e-5)


def test_box_disagreement_is_weighted_by_the_score() -> None:
    committee = agreeing([1, 1, 1], classes=1)
    probs = np.array([[[0.9], [0.9], [0.1]]] * 3, dtype=np.float32)
    boxes = np.zeros((3, 3, 4), dtype=np.float32)
    boxes[0, 1:] = 30
    still, moves, noise = values("box_disagreement", Committee(committee.offsets, probs, boxes))
    assert still == 0
    assert moves == pytest.approx(9 * noise, rel=1e-5)


# The structure


@pytest.mark.parametrize("field", ["member_probs", "member_boxes", "member_variance"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(field: str, bad: float) -> None:
    good = make_committee([2, 1])
    parts = {name: getattr(good, name).copy() for name in ("member_probs", "member_boxes", "member_variance")}
    parts[field][0, 0, 0] = bad
    with pytest.raises(ValueError, match=f"{field} holds NaN"):
        Committee(good.offsets, **parts)


@pytest.mark.parametrize(
    ("offsets", "probs", "boxes", "complaint"),
    [
        ([0, 2], (1, 2, 3), (1, 2, 4), "a committee of 1"),
        ([0, 2], (2, 3, 3), (2, 3, 4), "do not fit 3 anchors"),
        ([0, 3, 2], (2, 2, 3), (2, 2, 4), "do not fit 2 anchors"),
        ([], (2, 0, 3), (2, 0, 4), "do not fit 0 anchors"),
        ([0, 2], (2, 2, 3), (2, 1, 4), "member_boxes"),
        ([0, 2], (2, 2, 3), (3, 2, 4), "member_boxes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    offsets: list[int], probs: tuple[int, ...], boxes: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Committee(np.array(offsets, dtype=np.int64), np.zeros(probs, np.float32), np.zeros(boxes, np.float32))


def test_a_committee_on_other_images_does_not_fit_the_pool() -> None:
    with pytest.raises(ValueError, match="a committee on 2 images does not fit 3"):
        Pool(
            np.arange(3),
            np.zeros(4, np.int64),
            np.zeros((0, 4), np.float32),
            committee=make_committee([1, 1]),
        )
