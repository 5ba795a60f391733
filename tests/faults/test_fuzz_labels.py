"""The fuzz of label configs and annotations, in its fast form; in full: `python -m tests.fuzz configs --cases 20000`.

Results: `python -m tests.fuzz results --cases 20000`.
"""

from __future__ import annotations

from tests.fuzz import configs, results


def test_no_label_config_escapes() -> None:
    report = configs.run(cases=500, seed=2)
    assert report.escapes == []
    assert min(report.outcomes[name] for name in ("read", "refused", "read with warnings")) > 3  # else all are alike


def test_no_result_of_an_annotation_escapes() -> None:
    report = results.run(cases=500, seed=2)
    assert report.escapes == []
    assert min(report.outcomes[name] for name in ("learned", "left out", "background")) > 3
