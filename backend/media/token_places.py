"""Which paths of Label Studio get our token: media, and no other path that a task or a redirect names."""

from __future__ import annotations

from urllib.parse import unquote

_FOLDERS = ("/data/", "/storage-data/")
_DECODINGS = 5  # proxies and servers, one after the other, may each decode a path


def is_media(path: str, prefix: str, task_id: int | None) -> bool:
    """Return whether a path, as it is sent, is one of Label Studio's media; `prefix` is the path of its own address.

    Media lie under /data/ and /storage-data/, and under the address at which Label Studio resolves this task's URIs.

    >>> is_media("/data/upload/1/a.png", "", 7), is_media("/tasks/7/resolve/", "", 7), is_media("/api/users/", "", 7)
    (True, True, False)
    >>> is_media("/data/%2e%2e/api/users/", "", 7), is_media("/tasks/8/resolve/", "", 7)
    (False, False)
    """
    if not path.startswith(f"{prefix}/") or not _is_straight(path):
        return False
    place = path[len(prefix) :]
    return place.startswith(_FOLDERS) or (task_id is not None and place == f"/tasks/{task_id}/resolve/")


def _is_straight(path: str) -> bool:
    """Return whether a path stays the same place if it is decoded again: no dots, no encoded slash."""
    slashes = path.count("/")
    for _ in range(_DECODINGS):
        segments = path.split("/")
        if {".", ".."}.intersection(segments) or "" in segments[1:-1] or "\\" in path or path.count("/") != slashes:
            return False
        decoded = unquote(path)
        if decoded == path:
            return True
        path = decoded
    return False
