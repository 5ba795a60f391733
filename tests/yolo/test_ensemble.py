"""Committees of real (untrained) YOLO models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import acquisition
from backend.acquisition.pool import Pool
from backend.errors import MediaError, ModelError, SettingError
from backend.yolo import ensemble
from backend.yolo.classifier import Classifier
from backend.yolo.dense_head import dfl_variance
from backend.yolo.detector import BATCH, Detector, load_detector
from backend.yolo.ensemble import (
    Member,
    MemberModel,
    Votes,
    augmented,
    committee_of,
    consult,
    perturbed,
    same_anchors,
    snapshots,
)
from backend.yolo.predictors import load_predictor
from backend.yolo.tasks import RECIPES
from tests.support import CLASSES, IMGSZ, tiny_yolo

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> list[Detector]:
    """Return three versions with weights from different seeds."""
    folder = tmp_path_factory.mktemp("versions")
    return [load_detector(tiny_yolo(folder / f"{seed}.pt", seed=seed), IMGSZ, "cpu") for seed in range(3)]


@pytest.fixture(scope="module")
def yolo26(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("yolo26") / "tiny.pt"
    return load_detector(tiny_yolo(path, architecture="yolo26n"), IMGSZ, "cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return more than one batch of pictures, with three shapes in turn."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(64, 64), (128, 80), (50, 120)]
    return [picture(folder / f"{i}.png", sizes[i % 3], seed=i) for i in range(BATCH + 2)]


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def assert_valid(votes: Votes, members: int, path: Path, dfl: bool = True) -> None:
    k = votes.probs.shape[1]
    assert votes.probs.shape == (members, k, len(CLASSES))
    assert votes.boxes.shape == (members, k, 4)
    with Image.open(path) as image:
        assert (votes.boxes >= 0).all()
        assert (votes.boxes <= [*image.size, *image.size]).all()
    assert ((votes.probs >= 0) & (votes.probs <= 1)).all()
    if dfl:
        assert votes.variance is not None
        assert votes.variance.shape == (members, k, 4)
        assert (votes.variance >= 0).all()
    else:
        assert votes.variance is None
    assert all(array.dtype == np.float32 for array in (votes.probs, votes.boxes))


def kinds(detectors: list[Detector]) -> dict[str, tuple[Member, ...]]:
    return {
        "snapshots": snapshots(detectors),
        "augmented": augmented(detectors[0]),
        "perturbed": perturbed(detectors[0], members=3, rate=0.3),
    }


@pytest.mark.parametrize("kind", ["snapshots", "augmented", "perturbed"])
def test_votes_on_every_path_in_order(detectors: list[Detector], pictures: list[Path], kind: str) -> None:
    members = kinds(detectors)[kind]
    votes_by_image = list(consult(members, pictures))
    assert len(votes_by_image) == len(pictures)
    for votes, path in zip(votes_by_image, pictures, strict=True):
        assert votes.probs.shape[1] == ensemble.TOP
        assert_valid(votes, len(members), path)
    (alone,) = consult(members, pictures[4:5])
    np.testing.assert_allclose(votes_by_image[4].probs, alone.probs, atol=1e-3)
    assert np.ptp(votes_by_image[0].probs, axis=0).max() > 0.01  # they disagree


@pytest.mark.parametrize("kind", ["snapshots", "augmented", "perturbed"])
def test_a_pool_is_ranked_by_the_votes(detectors: list[Detector], pictures: list[Path], kind: str) -> None:
    n = 6
    committee = committee_of(list(consult(kinds(detectors)[kind], pictures[:n], top=8)))
    assert committee.offsets.tolist() == list(range(0, 8 * n + 1, 8))
    pool = Pool(np.arange(n), np.zeros(n + 1, np.int64), np.zeros((0, 2), np.float32), committee=committee)
    for name in ("bald", "choi", "consistency", "discrepancy", "box_disagreement"):
        values = acquisition.get(name)(pool, np.random.default_rng(0))
        assert np.isfinite(values).all()
        assert len(np.unique(values)) > 1


def test_the_same_model_twice_agrees_with_itself(detectors: list[Detector], pictures: list[Path]) -> None:
    committee = committee_of(list(consult(snapshots([detectors[0], detectors[0]]), pictures[:4])))
    pool = Pool(np.arange(4), np.zeros(5, np.int64), np.zeros((0, 2), np.float32), committee=committee)
    for name in ("bald", "consistency", "discrepancy", "box_disagreement"):
        assert acquisition.get(name)(pool, np.random.default_rng(0)) == pytest.approx(np.zeros(4), abs=1e-9)


@pytest.mark.parametrize("dfl", [True, False])
def test_the_plain_members_votes_are_the_prediction(
    detectors: list[Detector], yolo26: Detector, pictures: list[Path], dfl: bool
) -> None:
    detector = detectors[0] if dfl else yolo26
    checked = 0
    for path, votes in zip(pictures, consult(augmented(detector, scales=()), pictures, top=10_000), strict=True):
        assert_valid(votes, 2, path, dfl)
        (plain,) = detector.predict([path])
        for row, box in enumerate(plain.boxes):  # every kept box is one of the anchors
            near = np.abs(votes.boxes[0] - box).max(axis=1) < 0.05
            alike = near & (np.abs(votes.probs[0] - plain.class_probs[row]).max(axis=1) < 1e-3)
            assert alike.any()
            if votes.variance is not None and plain.box_variance is not None:
                variance = votes.variance[0][alike]
                assert np.isclose(variance, plain.box_variance[row], rtol=0.02, atol=1e-3).all(axis=1).any()
            checked += 1
    assert checked > len(pictures)


def test_the_mirror_image_of_the_mirror_image(detectors: list[Detector], tmp_path: Path) -> None:
    """The mirrored member's votes on an image are the plain member's votes on its mirror image, mirrored back."""
    size = (128, 96)
    path = picture(tmp_path / "one.png", size, seed=3)
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    members = augmented(detectors[0], scales=())
    plain, mirrored = consult(members, [path, tmp_path / "other.png"])  # the best anchors of both, in the same order
    assert plain.variance is not None
    assert mirrored.variance is not None
    back = plain.boxes[1][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [size[0], 0, size[0], 0]
    np.testing.assert_allclose(mirrored.probs[0], plain.probs[1], atol=1e-3)
    np.testing.assert_allclose(mirrored.boxes[0], back, atol=0.1)
    np.testing.assert_allclose(mirrored.variance[0], plain.variance[1][:, [2, 1, 0, 3]], rtol=0.05, atol=0.1)


def test_members_are_compared_where_the_image_is_the_same(detectors: list[Detector], tmp_path: Path) -> None:
    """On a symmetric image of whole cells the mirrored member and the plain member see the same."""
    path = picture(tmp_path / "half.png", (64, 64))
    with Image.open(path) as image:
        pixels = np.asarray(image)
    Image.fromarray(np.concatenate([pixels[:, :32], pixels[:, 31::-1]], axis=1)).save(path)
    (votes,) = consult(augmented(detectors[0], scales=()), [path], top=84)
    mirrored = votes.boxes[1][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
    for box in mirrored:  # mirrored back, each box is a box of the plain image too
        assert np.abs(votes.boxes[0] - box).max(axis=1).min() < 0.1


def test_a_smaller_member_is_brought_back_to_the_pixels_of_the_image(detectors: list[Detector], tmp_path: Path) -> None:
    detector = load_like(detectors[0], 256)
    path = picture(tmp_path / "image.png", (512, 384))  # letterboxed to half its size; the member gets half of that
    member = Member(detector, scale=0.5)
    (votes,) = consult((Member(detector), member), [path], top=10_000)
    view = ensemble.member_view(member, detector.stack([detector.read(path)]))
    assert view.shape == (1, 3, 96, 128)
    dense = detector.dense(view)
    x, y, width, height = dense.boxes[0].numpy() * 4
    expected = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    expected = np.clip(expected, 0, [512, 384, 512, 384])
    probs = dense.probs[0].numpy().T
    nearby = 0
    for box, p in zip(votes.boxes[1], votes.probs[1], strict=True):
        off = np.abs(expected - box).max(axis=1) + np.abs(probs - p).max(axis=1)
        nearby += off.min() < 0.05
    assert nearby == votes.probs.shape[1]
    assert dense.sides is not None
    variance = dfl_variance(dense.sides[0].T.reshape(-1, 4, 16), dense.strides).numpy() * 16
    assert votes.variance is not None
    assert votes.variance[1].max() == pytest.approx(variance.max(), rel=1e-3)


def load_like(detector: Detector, imgsz: int) -> Detector:
    return Detector(detector.model, imgsz)


def test_the_top_anchors_are_those_any_member_scores_highest(detectors: list[Detector], pictures: list[Path]) -> None:
    members = snapshots(detectors)
    (everything,) = consult(members, pictures[:1], top=10_000)
    (few,) = consult(members, pictures[:1], top=5)
    assert everything.probs.shape[1] == 8 * 8 + 4 * 4 + 2 * 2
    best = np.sort(everything.probs.max(axis=(0, 2)))[::-1][:5]
    assert np.sort(few.probs.max(axis=(0, 2)))[::-1] == pytest.approx(best)


def test_perturbed_members_are_the_same_every_time_and_leave_the_model_whole(
    detectors: list[Detector], pictures: list[Path]
) -> None:
    (before,) = detectors[0].predict(pictures[:1])
    first, again = (next(consult(perturbed(detectors[0], 3, 0.4), pictures[:1])) for _ in range(2))
    np.testing.assert_array_equal(first.probs, again.probs)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.allclose(first.probs[1], first.probs[2], atol=1e-3)
    assert not np.allclose(first.boxes[0], first.boxes[1], atol=1e-2)
    (after,) = detectors[0].predict(pictures[:1])
    np.testing.assert_array_equal(before.boxes, after.boxes)


def test_a_member_without_dfl_leaves_the_variance_out(
    detectors: list[Detector], yolo26: Detector, pictures: list[Path]
) -> None:
    (votes,) = consult(snapshots([detectors[0], yolo26]), pictures[:1])
    assert_valid(votes, 2, pictures[0], dfl=False)
    assert committee_of([votes]).member_variance is None


def test_a_committee_costs_at_most_a_scoring_each(detectors: list[Detector], pictures: list[Path]) -> None:
    """The cost is counted in pixels that pass through a model; tests/benchmarks/committee_cost.py measures the time."""

    def pixels(run: Callable[[], Iterable[object]]) -> int:
        passes: list[int] = []
        hooks = [
            detector.model.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0][:, 0].numel()))
            for detector in detectors
        ]
        try:
            assert len(list(run())) == len(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        return sum(passes)

    scoring = pixels(lambda: detectors[0].predict(pictures))
    assert scoring > 0
    for members in kinds(detectors).values():
        cost = pixels(lambda members=members: consult(members, pictures))  # type: ignore[misc]
        assert scoring < cost <= len(members) * scoring


def test_no_paths_no_votes(detectors: list[Detector]) -> None:
    assert list(consult(augmented(detectors[0]), [])) == []
    empty = committee_of([])
    assert empty.offsets.tolist() == [0]
    pool = Pool(np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros((0, 2), np.float32), committee=empty)
    assert acquisition.get("bald")(pool, np.random.default_rng(0)).tolist() == []


def test_a_file_that_is_no_image_is_named(detectors: list[Detector], pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(MediaError, match=r"text\.jpg"):
        list(consult(augmented(detectors[0]), [pictures[0], tmp_path / "text.jpg"]))


def test_a_model_that_is_not_finite_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    import torch

    detector = load_detector(tiny_yolo(tmp_path / "tiny.pt"), IMGSZ, "cpu")
    with torch.no_grad():
        next(detector.model.model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        list(consult(augmented(detector), pictures[:1]))


def test_a_semantic_segmentation_model_is_no_committee_member(detectors: list[Detector], tmp_path: Path) -> None:
    assert ensemble.member_model(detectors[0]) is detectors[0]
    assert "committee" in RECIPES["semantic"].lacks
    with pytest.raises(ModelError, match=r"predicts pixels.*choose a strategy without one"):
        ensemble.member_model(load_predictor(tiny_yolo(tmp_path / "tiny.pt", task="semantic"), IMGSZ, "cpu"))


def test_one_version_is_no_committee(detectors: list[Detector]) -> None:
    with pytest.raises(ModelError, match="two published versions, there are 1"):
        snapshots(detectors[:1])
    with pytest.raises(ModelError, match="there are 0"):
        snapshots([])


def test_versions_with_other_classes_are_no_committee(detectors: list[Detector], tmp_path: Path) -> None:
    other = load_detector(tiny_yolo(tmp_path / "tiny.pt", ("dog", "cat")), IMGSZ, "cpu")
    with pytest.raises(ModelError, match="the same classes"):
        snapshots([detectors[0], other])


@pytest.mark.parametrize("scale", [0.0, 1.01, -1.0, float("nan")])
def test_scales_that_would_cost_more_or_show_nothing(detectors: list[Detector], scale: float) -> None:
    with pytest.raises(SettingError, match="scales"):
        augmented(detectors[0], scales=(scale,))


@pytest.mark.parametrize(("members", "rate"), [(1, 0.1), (3, 0.0), (3, 0.95), (3, float("nan"))])
def test_perturbation_out_of_range(detectors: list[Detector], members: int, rate: float) -> None:
    with pytest.raises(SettingError, match="perturbed"):
        perturbed(detectors[0], members, rate)


# Rotated boxes


def test_the_hulls_of_rotated_boxes_are_compared(tmp_path: Path) -> None:
    """The plain member's boxes are the hulls that `predict` gives, not the boxes without their rotation."""
    detector = load_detector(tiny_yolo(tmp_path / "tiny.pt", task="obb"), IMGSZ, "cpu")
    path = picture(tmp_path / "one.png", (64, 64), seed=2)
    (plain,) = detector.predict([path])
    (votes,) = consult(augmented(detector, scales=()), [path], top=10_000)
    assert plain.rotated is not None
    unturned = np.abs(plain.rotated[:, 2:4] - (plain.boxes[:, 2:] - plain.boxes[:, :2])).max()
    assert unturned > 1  # there is something to tell apart
    checked = 0
    for row, box in enumerate(plain.boxes):
        alike = np.abs(votes.probs[0] - plain.class_probs[row]).max(axis=1) < 1e-4
        checked += bool((np.abs(votes.boxes[0][alike] - box).max(axis=1) < 0.1).any())
    assert checked == len(plain.boxes) > 0


def test_the_mirrored_member_sees_the_mirrored_hull(tmp_path: Path) -> None:
    detector = load_detector(tiny_yolo(tmp_path / "tiny.pt", task="obb"), IMGSZ, "cpu")
    path = picture(tmp_path / "one.png", (64, 64), seed=3)
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    plain, mirrored = consult(augmented(detector, scales=()), [path, tmp_path / "other.png"])
    back = plain.boxes[1][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
    np.testing.assert_allclose(mirrored.boxes[0], back, atol=0.1)


# Whole images


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> list[Classifier]:
    folder = tmp_path_factory.mktemp("classifiers")
    models = [load_predictor(tiny_yolo(folder / f"{n}.pt", seed=n, task="classify"), IMGSZ, "cpu") for n in range(3)]
    return [model for model in models if isinstance(model, Classifier)]


def class_kinds(classifiers: list[Classifier]) -> dict[str, tuple[Member, ...]]:
    return {
        "snapshots": snapshots(classifiers),
        "augmented": augmented(classifiers[0]),
        "perturbed": perturbed(classifiers[0], members=3, rate=0.3),
    }


@pytest.mark.parametrize("kind", ["snapshots", "augmented", "perturbed"])
def test_classifiers_vote_on_images_as_a_whole(classifiers: list[Classifier], pictures: list[Path], kind: str) -> None:
    members = class_kinds(classifiers)[kind]
    votes_by_image = list(consult(members, pictures))
    assert len(votes_by_image) == len(pictures)
    for votes, path, plain in zip(votes_by_image, pictures, classifiers[0].predict(pictures), strict=True):
        assert_valid(votes, len(members), path, dfl=False)
        assert votes.probs.shape[1] == 1
        np.testing.assert_allclose(votes.probs[0], plain.class_probs, atol=1e-5)
        np.testing.assert_array_equal(votes.boxes, np.tile(plain.boxes, (len(members), 1, 1)))
    assert np.ptp(votes_by_image[0].probs, axis=0).max() > 1e-3  # they disagree
    n, committee = len(votes_by_image), committee_of(votes_by_image)
    pool = Pool(np.arange(n), np.zeros(n + 1, np.int64), np.zeros((0, 2), np.float32), committee=committee)
    for name in ("bald", "choi", "consistency", "discrepancy"):
        values = acquisition.get(name)(pool, np.random.default_rng(0))
        assert np.isfinite(values).all()
        assert len(np.unique(values)) > 1
    with pytest.raises(ModelError, match="predicts whole images"):
        acquisition.get("box_disagreement")(pool, np.random.default_rng(0))


def test_a_mirrored_classifier_sees_the_mirror_image(classifiers: list[Classifier], tmp_path: Path) -> None:
    path = picture(tmp_path / "one.png", (64, 64), seed=3)
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    members = augmented(classifiers[0], scales=())
    plain, mirrored = consult(members, [path, tmp_path / "other.png"])
    np.testing.assert_allclose(plain.probs[1], mirrored.probs[0], atol=1e-5)
    np.testing.assert_allclose(plain.probs[0], mirrored.probs[1], atol=1e-5)


def test_perturbed_classifiers_are_the_same_every_time_and_leave_the_model_whole(
    classifiers: list[Classifier], pictures: list[Path]
) -> None:
    (before,) = classifiers[0].predict(pictures[:1])
    first, again = (next(iter(consult(perturbed(classifiers[0], 3, 0.4), pictures[:1]))) for _ in range(2))
    np.testing.assert_array_equal(first.probs, again.probs)
    assert not np.allclose(first.probs[1], first.probs[2], atol=1e-4)
    (after,) = classifiers[0].predict(pictures[:1])
    np.testing.assert_array_equal(before.class_probs, after.class_probs)


def test_classifiers_of_other_classes_and_detectors_are_no_committee(
    classifiers: list[Classifier], detectors: list[Detector], tmp_path: Path
) -> None:
    other = load_predictor(tiny_yolo(tmp_path / "tiny.pt", ("dog", "cat"), task="classify"), IMGSZ, "cpu")
    assert isinstance(other, Classifier)
    mixtures: list[list[MemberModel]] = [[classifiers[0], other], [classifiers[0], detectors[0]]]
    for mixed in mixtures:
        with pytest.raises(ModelError, match="the same classes"):
            snapshots(mixed)


# Anchors


@pytest.mark.parametrize("flip", [False, True])
def test_the_same_grid_has_the_same_anchors(flip: bool) -> None:
    grids = [(4, 6), (2, 3)]
    anchors = same_anchors(grids, grids, flip)
    assert sorted(anchors.tolist()) == list(range(30))
    assert (anchors == np.arange(30)).all() == (not flip)
    assert (anchors[anchors] == np.arange(30)).all()  # mirrored twice is as before


def test_a_smaller_grid_has_the_cell_that_covers_the_centre() -> None:
    anchors = same_anchors([(3, 3), (1, 1)], [(2, 2), (1, 1)], False)
    assert anchors.tolist() == [0, 1, 1, 2, 3, 3, 2, 3, 3, 4]
    assert same_anchors([(2, 4)], [(1, 2)], True).tolist() == [1, 1, 0, 0] * 2
