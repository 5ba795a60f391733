"""Settings, and docs/settings.md, which `python -m tests.test_settings` writes from their table."""

from __future__ import annotations

import math
import re
from typing import get_args

import pytest

from backend.errors import SettingError
from backend.settings import PROJECT_SETTINGS, Settings, allowed, from_env
from tests.support import ROOT

DOC = ROOT / "docs/settings.md"
FIELDS = Settings.model_fields


def markdown() -> str:
    """Return docs/settings.md."""
    connection = "".join(_row(name) for name in FIELDS if name not in PROJECT_SETTINGS)
    learning = "".join(_row(name) for name in PROJECT_SETTINGS)
    head = "| Name | Default | Allowed | What it does |\n|---|---|---|---|\n"
    return (
        "# Settings\n\n"
        "`python -m tests.test_settings` writes this page from the table in `backend/settings.py`. Do not edit it by "
        "hand.\n\n"
        "## The connection and the server\n\n"
        "Set these as environment variables. An empty variable counts as not set.\n\n"
        f"{head}{connection}\n"
        "## How a project learns\n\n"
        "Set these as environment variables for all projects. For one project, write them as JSON into *Any extra\n"
        "params* of the model in Label Studio (Settings → Model). The value of the project wins. Upper and lower\n"
        "case make no difference in names:\n\n"
        '```json\n{"RETRAIN_EVERY": 50, "MODEL_SCORE_THRESHOLD": 0.3}\n```\n\n'
        f"{head}{learning}"
    )


def _row(name: str) -> str:
    field = FIELDS[name]
    default = "" if field.default == "" else f"`{field.default}`"
    return f"| `{name.upper()}` | {default} | {_allowed(name)} | {field.description} |\n"


def _allowed(name: str) -> str:
    choices = get_args(FIELDS[name].annotation)
    return ", ".join(f"`{choice}`" for choice in choices) if choices else allowed(name)


def test_doc_is_what_the_table_says() -> None:
    assert DOC.read_text(encoding="utf-8") == markdown(), (
        "stale: run `python -m tests.test_settings` and commit the file"
    )


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_documented(name: str) -> None:
    assert len(FIELDS[name].description or "") >= 10
    assert "|" not in (FIELDS[name].description or ""), "would break the table"
    assert len(re.findall(rf"^\| `{name.upper()}` \|", DOC.read_text(encoding="utf-8"), re.MULTILINE)) == 1


def test_doc_names_no_other_setting() -> None:
    documented = re.findall(r"^\| `([A-Z0-9_]+)` \|", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(documented) == {name.upper() for name in FIELDS}


def test_doc_states_limits() -> None:
    text = markdown()
    assert "| `VAL_SHARE` | `0.2` | number > 0, < 1 |" in text
    assert "| `PORT` | `9090` | whole number >= 0, <= 65535 |" in text
    assert "| `LOG_LEVEL` | `INFO` | `DEBUG`, `INFO`, `WARNING`, `ERROR` |" in text


def test_connection_is_not_for_projects() -> None:
    assert {"label_studio_url", "label_studio_api_key", "model_dir", "basic_auth_pass", "allowed_hosts"}.isdisjoint(
        PROJECT_SETTINGS
    )
    assert {"base_model", "strategy", "retrain_every", "seed"} <= set(PROJECT_SETTINGS)


def test_the_default_settings_are_valid() -> None:
    assert Settings.model_validate(Settings().model_dump()) == from_env({})


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].annotation in (int, float)])
def test_numbers_refuse_nan_and_text(name: str) -> None:
    for bad in ("nan", "many"):
        with pytest.raises(SettingError, match=rf"{name.upper()}='{bad}'"):
            from_env({name.upper(): bad})


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].annotation in (int, float)])
def test_every_number_has_both_bounds(name: str) -> None:
    limits = [
        bound
        for bound in ("ge", "gt", "le", "lt")
        for constraint in FIELDS[name].metadata
        if hasattr(constraint, bound)
    ]
    assert len(set(limits) & {"ge", "gt"}) == 1
    assert len(set(limits) & {"le", "lt"}) == 1
    for value in ("-1e30", "1e30", -math.inf, math.inf, True):
        with pytest.raises(SettingError, match=name.upper()):
            from_env({}, **{name: value})


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].annotation is float])
def test_numbers_are_finite(name: str) -> None:
    with pytest.raises(SettingError, match=name.upper()):
        from_env({name.upper(): str(math.inf)})


class TestFromEnv:
    def test_reads_the_environment_by_type(self) -> None:
        settings = from_env(
            {"LABEL_STUDIO_URL": "http://ls:8080", "PORT": "0", "TOLERANCE": "0.1", "PATH": "x", "port": "7"}
        )
        assert settings.label_studio_url == "http://ls:8080"
        assert settings.port == 0
        assert settings.tolerance == 0.1

    def test_empty_means_unset(self) -> None:
        assert from_env({"PORT": "", "BASE_MODEL": ""}) == Settings()

    def test_given_values_win_and_none_does_not(self) -> None:
        settings = from_env({"PORT": "1", "HOST": "::1"}, port=2, host=None)
        assert (settings.port, settings.host) == (2, "::1")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("UNCERTAIN_SHARE", "1.01"),
            ("POOL_LIMIT", "-1"),
            ("PROTOCOL", "datahunt3"),
            ("BANDIT", "on"),
            ("BUDGET", "-1"),
            ("PORT", "65536"),
            ("PORT", "-1"),
            ("PORT", "eighty"),
            ("MODEL_SCORE_THRESHOLD", "1.5"),
            ("RETRAIN_EVERY", "0"),
            ("RETRAIN_EVERY", "2.5"),
            ("VAL_SHARE", "0"),
            ("VAL_SHARE", "1"),
            ("IMGSZ", "31"),
            ("LOG_LEVEL", "LOUD"),
        ],
    )
    def test_names_the_variable_its_value_and_the_cure(self, name: str, value: str) -> None:
        with pytest.raises(SettingError) as caught:
            from_env({name: value})
        assert caught.value.what.startswith(f"{name}='{value}': Input should be ")
        assert caught.value.where == "environment"
        assert caught.value.fix == f"allowed: {allowed(name.lower())}; see {name} in docs/settings.md"

    def test_an_unknown_given_name_is_an_error(self) -> None:
        with pytest.raises(SettingError, match="PROT"):
            from_env({}, prot=1)


if __name__ == "__main__":
    DOC.write_text(markdown(), encoding="utf-8")


def test_a_user_name_holds_no_colon() -> None:
    """To HTTP "a:b" with the password "c" is "a" with "b:c"."""
    with pytest.raises(SettingError, match=r"BASIC_AUTH_USER='a:b': .*cannot hold a colon"):
        from_env({"BASIC_AUTH_USER": "a:b", "BASIC_AUTH_PASS": "c"})
    assert from_env({"BASIC_AUTH_USER": "a", "BASIC_AUTH_PASS": "b:c"}).basic_auth_pass == "b:c"
