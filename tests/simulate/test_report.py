"""The page of an experiment, with strategies that are better than random, worse, and neither."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from PIL import Image

from backend.datasets.reader import LabeledFile
from backend.settings import Settings
from backend.simulate import records, report
from backend.simulate.records import Base, Plan, Results, Row
from backend.simulate.simulation_data import SimulationData
from backend.types import ControlTag, LabeledBox
from tests.support import ROOT

CLASSES = ("cat", "dog")
TAG = ControlTag("rectanglelabels", "label", "image", "image", CLASSES, {name: name for name in CLASSES})
BOX = (0.5, 0.5, 0.2, 0.2)
# quality of each seed after 10, 20 and 30 images
CURVES = {
    "random": ((0.4, 0.5, 0.6), (0.4, 0.52, 0.58), (0.4, 0.48, 0.62)),
    "better": ((0.4, 0.7, 0.8), (0.4, 0.72, 0.8), (0.4, 0.68, 0.8)),
    "same": ((0.4, 0.55, 0.55), (0.4, 0.47, 0.62), (0.4, 0.5, 0.6)),
    "worse": ((0.4, 0.4, 0.4), (0.4, 0.41, 0.4), (0.4, 0.4, 0.39)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulationData:
    """Thirty images with a cat each; images with an odd number also have a dog."""
    folder = tmp_path_factory.mktemp("pool")
    files = []
    for number in range(30):
        Image.new("RGB", (20, 20), (8 * number, 0, 0)).save(folder / f"{number}.png")
        labels = CLASSES[: 1 + number % 2]
        files.append(LabeledFile(folder / f"{number}.png", tuple(LabeledBox(label, BOX) for label in labels)))
    return SimulationData(TAG, tuple(files), tuple(files[:2]), folder, ())


def results(
    curves: Mapping[str, tuple[tuple[float, ...], ...]], boxes: Mapping[str, int] | None = None, **changed: object
) -> Results:
    """Return an experiment; `boxes` are those of an image that a strategy picks."""
    strategies, seeds = tuple(curves), len(next(iter(curves.values())))
    plan = Plan(
        data="blood/data.yaml",
        data_sha256="abc",
        classes=CLASSES,
        pool=30,
        test=20,
        strategies=strategies,
        seeds=seeds,
        rounds=3,
        initial=10,
        batch=10,
        base=Base(source="yolo11n.yaml"),
        settings=records.learning_settings(Settings()),
        software={"torch": "2"},
    )
    rows = []
    for name, by_seed in curves.items():
        for seed, values in enumerate(by_seed):
            for done, value in enumerate(values):
                rows.append(
                    Row(
                        strategy=name,
                        seed=seed,
                        round=done + 1,
                        images=10 * (done + 1),
                        boxes=10 + 10 * done * (boxes or {}).get(name, 1),
                        map50=value,
                        map50_95=value / 2,
                        class_ap50={"cat": value, "dog": value},
                        published=True,
                        unranked="",
                        train_s=1,
                        score_s=1,
                        rank_s=1,
                        picked=tuple(f"{number}.png" for number in range(10 * done, 10 * done + 10)),
                    ).model_copy(update=changed)
                )
    return Results(plan=plan, date=datetime(2026, 1, 1, tzinfo=UTC), machine="a machine", rows=tuple(rows))


def cells(page: str, heading: str, name: str) -> list[str]:
    """Return the cells of a row of the table under a heading."""
    under = page[page.index(f"<h2>{heading}") :]
    row = under[under.index(f"<tr><td>{name}</td>") :]
    return re.findall(r"<td>(.*?)</td>", row[: row.index("</tr>")])[1:]


def sentence(page: str, name: str) -> str:
    (text,) = re.findall(rf"<li><b>{name}</b>: (.*?)</li>", page)
    return str(text)


def test_results_without_a_difference_are_shown(data: SimulationData) -> None:
    page = report.render(results(CURVES), data)
    assert '<span class="better">better than random</span> by 0.150 mAP50, averaged over the labels' in sentence(
        page, "better"
    )
    assert '<span class="worse">worse than random</span>' in sentence(page, "worse")
    assert sentence(page, "worse").endswith("it did not reach the last mAP50 of random")
    assert sentence(page, "same").startswith("no significant difference from random; ")
    assert not any("class=" in cell for cell in cells(page, "Against random", "same"))
    assert all("class=" in cell for cell in cells(page, "Against random", "better")[2:4])


def test_labels_to_the_quality_of_random_have_an_interval(data: SimulationData) -> None:
    """The mean of random ends at .6, which `better` reaches two thirds of the way from 10 to 20 images."""
    page = report.render(results(CURVES, boxes={"better": 3}), data)
    last, area, last_gain, area_gain, images, boxes = cells(page, "Against random", "better")
    assert re.fullmatch(r"0\.800<br>0\.\d{3} … 0\.\d{3}", last)
    assert re.fullmatch(r"0\.650<br>0\.\d{3} … 0\.\d{3}", area)
    assert re.fullmatch(r'<span class="better">\+0\.200</span><br>\+0\.\d{3} … \+0\.\d{3}', last_gain)
    assert re.fullmatch(r'<span class="better">\+0\.150</span><br>\+0\.\d{3} … \+0\.\d{3}', area_gain)
    assert re.fullmatch(r"56%<br>\d\d% … \d\d%", images)
    assert re.fullmatch(r"100%<br>\d+% … \d+%", boxes)  # 10 + 2/3 · 30 of random's 30
    assert cells(page, "Against random", "worse")[4].startswith("not reached")
    assert cells(page, "Against random", "random") == ["0.600<br>0.580 … 0.620", "0.500<br>0.495 … 0.505", *"----"]


def test_curves_go_over_images_and_over_boxes_with_their_spread(data: SimulationData) -> None:
    page = report.render(results(CURVES, boxes={"better": 3}), data)
    over_images, over_boxes = page.split("<svg")[1:3]
    assert "better: 0.800 at 30" in over_images
    assert "better: 0.800 at 70" in over_boxes
    for chart in (over_images, over_boxes):
        assert chart.count("<polygon") == len(CURVES)
    page_of_one_seed = report.render(results({name: values[:1] for name, values in CURVES.items()}), data)
    assert sentence(page_of_one_seed, "better").startswith("with one seed, any difference may be noise")
    assert "…" not in "".join(cells(page_of_one_seed, "Against random", "better"))


def answer(curves: Mapping[str, tuple[tuple[float, ...], ...]], data: SimulationData) -> str:
    (text,) = re.findall(r'<p class="answer">Is it worth it\? (.*?)</p>', report.render(results(curves), data))
    return str(text)


def test_the_first_line_answers_a_lead(data: SimulationData) -> None:
    assert re.fullmatch(
        r"Yes: with better you label 56% of the images \(95%: \d\d% to \d\d%\) that random order needs .*",
        answer(CURVES, data),
    )
    without = {name: CURVES[name] for name in ("random", "same", "worse")}
    assert answer(without, data).startswith("Not shown: none of 2 strategies was significantly better")
    assert answer(without, data).endswith("1 of them did worse.")
    one_seed = {name: values[:1] for name, values in CURVES.items()}
    assert answer(one_seed, data).startswith("Cannot say yet: with one seed")
    late = {"random": CURVES["random"], "late": ((0.4, 0.8, 0.59), (0.4, 0.8, 0.57), (0.4, 0.8, 0.61))}
    assert answer(late, data).startswith("Yes: with late you label")
    assert answer({"random": CURVES["random"]}, data) == (
        "Only random selection was tried, so there is nothing to compare."
    )
    flat = {"random": ((0.4, 0.4, 0.4),) * 3, "better": CURVES["better"]}
    assert answer(flat, data).startswith("Cannot say: even random labels did not improve the model")


def test_each_class_has_its_curves_and_each_line_its_name(data: SimulationData) -> None:
    page = report.render(results(CURVES), data)
    classes = page[page.index("<h2>Learning curves of the classes") :].split("<svg")[1:]
    assert len(classes) == len(CLASSES)
    for chart in classes:
        for name in CURVES:
            assert f">{name}</text>" in chart
    unmeasured = results(CURVES, class_ap50={"cat": 0.5})
    assert report.render(unmeasured, data).count("<h3>") == 1


def test_the_report_and_the_page_share_one_design_sheet(data: SimulationData) -> None:
    def tokens(text: str) -> str:
        return text[text.index(":root") : text.index("}", text.index(":root"))]

    style = (ROOT / "backend" / "web" / "page" / "static" / "style.css").read_text()
    assert tokens(report.render(results(CURVES), data)) == tokens(style)


def test_classes_and_images_that_were_picked_are_shown(data: SimulationData) -> None:
    some = results(CURVES)
    rows = [
        row.model_copy(update={"picked": ("1.png", "3.png")}) if row.strategy == "same" and row.round > 1 else row
        for row in some.rows
    ]
    page = report.render(some.model_copy(update={"rows": tuple(rows)}), data)
    assert cells(page, "Classes of the picked images", "whole pool") == ["66.7%", "33.3%"]
    assert cells(page, "Classes of the picked images", "same") == ["50.0%", "50.0%"]
    assert cells(page, "AP50 of each class", "worse") == ["0.397<br>0.390 … 0.400"] * 2
    assert page.count("2 images for round 2:") == 1
    assert page.count("10 images for round 3:") == len(CURVES) - 1


def test_unpublished_and_unranked_rounds_are_listed(data: SimulationData) -> None:
    page = report.render(results(CURVES, published=False, unranked="no committee"), data)
    assert "worse: 9 versions were not published" in page
    assert "same: could not rank 9 times: no committee" in page
    assert "Rounds without a new version" not in report.render(results(CURVES), data)


def test_without_random_no_saved_labels_are_shown(data: SimulationData) -> None:
    page = report.render(results({"better": CURVES["better"]}), data)
    assert "the saved labels cannot be computed" in page
    assert cells(page, "Against random", "better") == ["0.800<br>0.800 … 0.800", "0.650<br>0.640 … 0.660"]


# Nothing learned

NOTHING = dict.fromkeys(("random", "better"), ((0.0, 0.0, 0.001), (0.0, 0.0, 0.0)))


def test_without_any_learning_the_page_gives_advice(data: SimulationData) -> None:
    page = report.render(results(NOTHING), data)
    assert "Nothing was learned: the best mAP50 of all 12 trainings is 0.001." in page
    for cure in ("--steps, now 500", "--imgsz, now 640", "pretrained base weights, as these started from scratch"):
        assert cure in page
    for verdict in ("better than random", "no difference", "had reached"):
        assert verdict not in page
    assert cells(page, "Against random", "better")[4:] == ["-", "-"]


def test_with_few_test_images_no_quality_is_shown(data: SimulationData) -> None:
    """Before: nine test images gave figures with three digits."""
    measured = results(CURVES)
    page = report.render(measured.model_copy(update={"plan": measured.plan.model_copy(update={"test": 9})}), data)
    assert "Not judged yet: the test split has 9 images, and 10 are needed." in page
    assert "Against random" not in page
    assert "0.800" not in page


def test_with_one_seed_the_last_figure_has_the_interval_of_the_test_images(data: SimulationData) -> None:
    page = report.render(results({"random": ((0.4, 0.5),), "better": ((0.4, 0.7),)}, interval=(0.6, 0.8)), data)
    assert cells(page, "Against random", "better")[:2] == ["0.700<br>0.600 … 0.800", "0.550"]


@pytest.mark.parametrize(("last", "learned"), [(0.5, False), (0.7, True)])
def test_a_classifier_that_names_one_class_always_has_learned_nothing(
    data: SimulationData, last: float, learned: bool
) -> None:
    halves = tuple(
        LabeledFile(file.path, (LabeledBox(CLASSES[place % 2], BOX),)) for place, file in enumerate(data.pool)
    )
    of_classes = dataclasses.replace(data, pool=halves, test=halves[:2])
    measured = results(dict.fromkeys(("random", "better"), ((0.4, 0.4, last),)))
    measured = measured.model_copy(update={"plan": measured.plan.model_copy(update={"task": "classify"})})
    assert ("Nothing was learned" in report.render(measured, of_classes)) is not learned


def test_without_a_gain_of_random_no_share_is_shown(data: SimulationData) -> None:
    """If the curve of random falls, any strategy "reaches" the last value with its first images."""
    page = report.render(results({"random": ((0.5, 0.4, 0.3),) * 2, "better": ((0.5, 0.6, 0.7),) * 2}), data)
    assert "random gained nothing by more labels, so there is no share of labels to compare" in page
    assert "had reached" not in page
    assert "better than random" in page


def test_names_of_strategies_images_and_classes_are_shown_as_text(data: SimulationData) -> None:
    renamed = dataclasses.replace(data, tag=dataclasses.replace(data.tag, labels=("<b>", "dog")))
    shown = results({"random": CURVES["random"], "<script>": CURVES["better"]})
    page = report.render(shown.model_copy(update={"plan": shown.plan.model_copy(update={"data": "<i>.yaml"})}), renamed)
    assert "<script>" not in page
    assert "&lt;script&gt;: 0.800 at 30" in page
    assert "&lt;i&gt;.yaml" in page
