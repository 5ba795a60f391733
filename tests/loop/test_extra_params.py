"""The settings of a project, from its extra params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from backend.errors import SettingError
from backend.loop.extra_params import for_project
from backend.settings import Settings


def test_a_text_of_a_project_is_validated_once() -> None:
    """Every request asks for the settings of its project several times."""
    text = '{"RETRAIN_EVERY": 30}'
    assert for_project(Settings(), text) is for_project(Settings(), text)
    assert for_project(Settings(seed=5), text).seed == 5
    with pytest.raises(SettingError):
        for_project(Settings(), '{"RETRAIN_EVERY": 0}')


@pytest.mark.parametrize("empty", [None, "", {}, "{}"])
def test_nothing_changes_nothing(empty: str | Mapping[str, Any] | None) -> None:
    settings = Settings(seed=3)
    assert for_project(settings, empty) == settings


@pytest.mark.parametrize(
    "params",
    [
        '{"RETRAIN_EVERY": 7, "Strategy": "random"}',
        '{"retrain_every": "7", "STRATEGY": "random"}',
        {"retrain_every": 7, "strategy": "random"},
    ],
)
def test_overrides_in_any_case_and_keeps_the_rest(params: str | Mapping[str, Any]) -> None:
    base = Settings(seed=3, label_studio_url="http://ls")
    changed = for_project(base, params)
    assert (changed.retrain_every, changed.strategy) == (7, "random")
    assert changed.model_copy(update={"retrain_every": 20, "strategy": base.strategy}) == base
    assert base.retrain_every == 20


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ("{RETRAIN_EVERY: 7}", "not JSON: .*line 1 column 2"),
        ("[]", "not a JSON object"),
        ("7", "not a JSON object"),
        ('"RETRAIN_EVERY"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"RETRAIN_EVRY": 7}', "unknown setting RETRAIN_EVRY .*Fix: did you mean RETRAIN_EVERY"),
        ('{"BATCHSIZE": 7}', r"did you mean BATCH\?"),
        ('{"XQZ": 7}', "docs/settings.md"),
        ('{"SEED": -1}', "SEED=-1: Input should be greater than or equal to 0"),
        ('{"BATCH": 1000000000}', "BATCH=1000000000: .*allowed: whole number >= 1, <= 1024"),
        ('{"TRAIN_STEPS": 1e18}', "TRAIN_STEPS="),
        ('{"RETRAIN_EVERY": true}', "RETRAIN_EVERY=True: Input should be a number or a text, not true or false"),
        ('{"TOLERANCE": false}', "TOLERANCE=False"),
        ('{"STRATEGY": true}', "STRATEGY=True"),
        ('{"SEED": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deep"),
        ('{"SEED": ' + "9" * 6000 + "}", "not JSON"),
        ('{"SEED": "' + "9" * 200_000 + '"}', "200012 characters, and at most 100000 are read"),
        ('{"MODEL_DIR": "/"}', "unknown setting MODEL_DIR"),
        ('{"LABEL_STUDIO_API_KEY": "x"}', "unknown setting LABEL_STUDIO_API_KEY"),
        ('{"RETRAIN_EVERY": 0}', "RETRAIN_EVERY=0: Input should be greater than or equal to 1"),
        ('{"RETRAIN_EVERY": null}', "RETRAIN_EVERY=None"),
        ('{"VAL_SHARE": NaN}', "VAL_SHARE=nan"),
        ('{"UNCERTAIN_SHARE": 2}', "UNCERTAIN_SHARE=2: .*allowed: number >= 0, <= 1"),
        ('{"STRATEGY": 3}', "STRATEGY=3: .*string"),
    ],
)
def test_says_what_is_wrong_where_and_how_to_fix_it(params: str, what: str) -> None:
    with pytest.raises(SettingError, match=what) as caught:
        for_project(Settings(), params)
    assert caught.value.where == "extra params of the ML backend"
    assert caught.value.fix
    assert caught.value.status == 400
