"""The maps of scored pools: one small npz file per version and control tag."""

from __future__ import annotations

import io

import numpy as np

from backend.evaluation.pool_map import PoolMap
from backend.storage import Files
from backend.store.npz import load_arrays
from backend.store.paths import map_file

_ARRAYS = (
    *("task_ids", "places", "labeled", "classes", "uncertainty", "twins", "oddness"),
    *("box_tasks", "box_places", "box_classes", "box_confidence", "names", "pool_counts", "explained"),
)
_FIX = "delete the file, and score the project again"


class PoolMaps:
    """Reads and writes the maps of pools; number 0 is the base model, `tag` a control tag's name in the store."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def save(self, project_id: int, number: int, drawn: PoolMap, *, tag: str) -> None:
        """Write the map of a version's pool by one tag, replacing the one before."""
        buffer = io.BytesIO()
        arrays = {name: np.asarray(getattr(drawn, name)) for name in _ARRAYS if name != "names"}
        np.savez_compressed(buffer, allow_pickle=False, names=np.array(drawn.names, dtype=np.str_), **arrays)
        self._files.write(map_file(project_id, number, tag), buffer.getvalue())

    def load(self, project_id: int, number: int, *, tag: str) -> PoolMap | None:
        """Return a map, None if none was drawn: an earlier release did not. Raises ModelError for a damaged file."""
        path = map_file(project_id, number, tag)
        try:
            file = self._files.open(path)
        except FileNotFoundError:
            return None
        with file:
            arrays = load_arrays(file, self._files.where(path), _ARRAYS, _FIX)
        names, explained = tuple(map(str, arrays.pop("names"))), float(arrays.pop("explained"))
        return PoolMap(**arrays, names=names, explained=explained)

    def exists(self, project_id: int, number: int, *, tag: str) -> bool:
        """Return whether a map was drawn."""
        return self.stamp(project_id, number, tag=tag) is not None

    def stamp(self, project_id: int, number: int, *, tag: str) -> str | None:
        """Return a text that changes when a map is drawn again, None if none was drawn."""
        folder, _, name = map_file(project_id, number, tag).rpartition("/")
        return self._files.entries(folder).get(name)
