from __future__ import annotations

import re

import pytest

from backend.store import paths


@pytest.mark.parametrize("tag", ["second", "../../secret", "a/b", "Qualität", " ", "labeled"])
def test_a_tag_of_any_name_has_a_plain_folder_of_its_own(tag: str) -> None:
    folder = paths.scored_folder(7, 2, tag)
    assert re.fullmatch(r"projects/7/versions/2/tags/[0-9a-f]{16}", folder)
    assert folder != paths.scored_folder(7, 2, f"{tag} ")
    assert paths.weights_file(7, 2, tag) == f"{folder}/weights.pt"
    assert paths.scored_folder(7, 2, tag, labeled=True) == f"{folder}/labeled"
