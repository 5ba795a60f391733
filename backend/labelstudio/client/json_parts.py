"""The parts of a large JSON text, found without parsing all of it.

A parser in C would hold the interpreter's lock until it has parsed everything. For 15 MB that takes seconds, and
meanwhile no other thread could answer Label Studio. Here we go through the text bracket by bracket, and parse only the
parts that we use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from backend.errors import RequestError

MAX_DEPTH = 100
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|"', re.DOTALL)
_SEPARATORS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]|"', re.DOTALL)
_KEY = re.compile(rb'\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*:\s*', re.DOTALL)
_SPACE = b" \t\n\r"


def members(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names of an object and the texts of their values; raises RequestError for other text.

    >>> list(members(b'{"a": [1, {"b": 2}], "c": "}"}'))
    [('a', b'[1, {"b": 2}]'), ('c', b'"}"')]
    """
    for part in _split(text, b"{", b"}"):
        named = _KEY.match(part)
        if named is None:
            raise not_json("a member of an object has no name")
        yield str(built(named[1])), part[named.end() :]


def elements(text: bytes) -> Iterator[bytes]:
    """Yield the texts of the elements of an array.

    >>> list(elements(b'[{"id": 1}, null , [2, 3]]'))
    [b'{"id": 1}', b'null', b'[2, 3]']
    """
    yield from _split(text, b"[", b"]")


def built(text: bytes) -> Any:
    """Return the value of a JSON text; raises RequestError for text that is not JSON, or is nested too deep."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise not_json(str(error)) from None


def not_json(why: str) -> RequestError:
    """Return the error for a text that is not JSON."""
    return RequestError(f"the body is not JSON: {why}", fix="send a JSON object")


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _split(text: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    """Yield the texts between the commas of an object or an array."""
    text = text.strip(_SPACE)
    if text[:1] != opening:
        raise not_json(f"{opening.decode()} is missing")
    start = position = 1
    while True:
        token = _SEPARATORS.search(text, position)
        if token is None or token[0] == b'"':
            raise not_json("it ends too early")
        position = token.end()
        match token[0][:1]:
            case b"{" | b"[":
                position = _end(text, token.start())
            case b"," | b"]" | b"}":
                part = text[start : token.start()].strip(_SPACE)
                last = token[0] != b","
                if last and (token[0] != closing or text[position:].strip(_SPACE)):
                    raise not_json("its brackets do not match")
                if part or not last or start > 1:
                    yield part
                if last:
                    return
                start = position


def _end(text: bytes, start: int) -> int:
    """Return where the object or array ends that begins at `start`."""
    stack, position = bytearray(), start
    while True:
        token = _BRACKETS.search(text, position)
        if token is None or token[0] == b'"':
            raise not_json("it ends too early")
        position = token.end()
        match token[0]:
            case b"{":
                stack += b"}"
            case b"[":
                stack += b"]"
            case b"}" | b"]":
                if stack.pop() != token[0][0]:
                    raise not_json("its brackets do not match")
                if not stack:
                    return position
        if len(stack) > MAX_DEPTH:
            raise not_json(f"it is nested more than {MAX_DEPTH} deep")
