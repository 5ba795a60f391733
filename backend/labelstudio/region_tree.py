"""The region tree of Label Studio: annotators put a region under another one, and the region keeps its parentID."""

from __future__ import annotations

from collections.abc import Mapping


def roots(parents: Mapping[str, str]) -> dict[str, str]:
    """Return region id -> id of the top of its tree; for parents in a circle, the smallest id of the circle.

    `parents` has the id of the region above each region, "" for none. Each region is visited once.

    >>> roots({"a": "", "b": "a", "c": "b"})
    {'a': 'a', 'b': 'a', 'c': 'a'}
    """
    tops: dict[str, str] = {}
    for name in parents:
        path: dict[str, int] = {}  # region id -> its index in the path
        while name and name not in path and name not in tops:
            path[name] = len(path)
            name = parents[name]
        if name in path:
            tops |= dict.fromkeys(path, min(list(path)[path[name] :]))
        else:
            tops |= dict.fromkeys(path, tops[name] if name else next(reversed(path)))
    return tops
