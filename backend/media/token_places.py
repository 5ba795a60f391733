"""Where on Label Studio's address the token may go: to media, and nowhere else that a task or a redirect names."""

from __future__ import annotations

from urllib.parse import unquote

_FOLDERS = ("/data/", "/storage-data/")
_DECODINGS = 5  # by proxies and servers, one behind the other


def is_media(path: str, prefix: str, task_id: int | None) -> bool:
    """Tell whether a path, as it is sent, is one of Label Studio's media; `prefix` is the path of its own address.

    Media are what lies under /data/ and /storage-data/, and what the task itself has resolved.

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
    """Tell whether a path names the same place however often it is decoded: no dots, no slash in disguise."""
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
