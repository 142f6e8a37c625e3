"""personalization.json, read and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.runs.personal_files import read_personalization
from fedbrats.runs.reading import RunFolderError
from tests.report.sections.test_personal_tables import write_known


def test_settings_are_text_and_damage_is_named(tmp_path: Path) -> None:
    assert read_personalization(tmp_path) is None
    write_known(tmp_path, settings={"unseen": "instance"})
    assert read_personalization(tmp_path)["settings"] == "unseen = instance"
    for changes, said in (
        ({"stays": "a"}, "stays must be a list"),
        ({"travels": None}, "travels must be a list"),
        ({"settings": [1]}, "settings must be a mapping"),
    ):
        write_known(tmp_path, **changes)
        with pytest.raises(RunFolderError, match=said):
            read_personalization(tmp_path)
