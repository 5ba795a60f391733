"""The parts of a large JSON text have the same values as the whole text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RequestError
from backend.labelstudio.client import json_parts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES), st.sampled_from([None, 1]), st.booleans())
def test_the_members_of_an_object(value: dict[str, object], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    assert {name: json_parts.built(part) for name, part in json_parts.members(text)} == value


@given(st.lists(VALUES))
def test_the_elements_of_an_array(value: list[object]) -> None:
    assert [json_parts.built(part) for part in json_parts.elements(json.dumps(value).encode())] == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b'{"a": 1',
        b'{"a" 1}',
        b'{"a": [1}}',
        b'{"a": 1} x',
        b'{"a": "b}',
        b"null",
        b'{"a": {]}}',
        b"{,}",
    ],
)
def test_what_is_no_object(text: bytes) -> None:
    with pytest.raises(RequestError, match="not JSON"):
        list(json_parts.members(text))


def test_nothing_is_nested_without_end() -> None:
    with pytest.raises(RequestError, match="deep"):
        list(json_parts.members(b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"))
    with pytest.raises(RequestError, match="not JSON"):
        json_parts.built(b"[" * 100_000)
