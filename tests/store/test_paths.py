from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from backend.store import paths
from tests.store.test_store import make_version
from tests.store.test_store import weights_file as some_weights


@pytest.mark.parametrize("tag", ["second", "../../secret", "a/b", "Qualität", " ", "labeled"])
def test_a_tag_of_any_name_has_a_plain_folder_of_its_own(tag: str, tmp_path: Path) -> None:
    version = replace(make_version(some_weights(tmp_path), 2), from_name="label")
    assert re.fullmatch(r"projects/7/versions/2/tags/[0-9a-f]{16}", paths.scored_folder(7, 2, tag=tag))
    assert paths.scored_folder(7, 2, tag=tag) != paths.scored_folder(7, 2, tag=f"{tag} ")
    assert paths.weights_file(version, tag) == f"{paths.scored_folder(7, 2, tag=tag)}/weights.pt"


def test_the_first_tags_files_are_the_versions_own(tmp_path: Path) -> None:
    version = replace(make_version(some_weights(tmp_path), 2), from_name="label")
    assert paths.weights_file(version, "label") == "projects/7/versions/2/weights.pt"
    assert paths.scored_folder(7, 2) == "projects/7/versions/2"
    assert paths.scored_folder(7, 2, labeled=True) == "projects/7/versions/2/labeled"
    assert paths.scored_folder(7, 2, labeled=True, tag="x") == f"{paths.scored_folder(7, 2, tag='x')}/labeled"
