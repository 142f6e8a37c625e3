"""What is wrong with a case costs that case only, whoever wrote its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.commands.predict.reading import BadCase, open_folder
from fedbrats.config.targets import ConfigError
from tests.data.brats_files import write_case
from tests.data.hostile_files import HOSTILE, written


def test_every_hostile_volume_is_a_fault_of_its_own_case(tmp_path: Path) -> None:
    root, bad, said = tmp_path / "data", {}, []
    for number, kind in enumerate(HOSTILE):
        name = f"BraTS2021_{number:05d}"
        folder = write_case(root, name, seed=1000 + 10 * number)
        bad[name] = written(kind, folder / f"{name}_flair.nii.gz")
    write_case(root, "BraTS2021_00090")
    write_case(tmp_path / "outside", "BraTS2021_00091")
    (root / "linked").symlink_to(tmp_path / "outside")
    arguments = ["checkpoint=unused", f"data={root}", "labels=brats2021"]
    opened = open_folder(read_arguments(arguments), tmp_path / "cache", tmp_path, said.append)
    assert f"passed over, links that leave {root}: {root / 'linked'}" in said
    for case in opened.cases:
        if case.name in bad:
            with pytest.raises(BadCase, match=str(bad[case.name])):
                opened.read(case)
        else:
            assert opened.read(case)[0].name == "BraTS2021_00090"
    opened = open_folder(
        read_arguments([*arguments, "links=follow"]), tmp_path / "cache", tmp_path, said.append
    )
    assert {case.name for case in opened.cases} == {*bad, "BraTS2021_00090", "BraTS2021_00091"}
    opened = open_folder(
        read_arguments([*arguments, "max_voxels=503"]), tmp_path / "cache", tmp_path, said.append
    )
    with pytest.raises(BadCase, match="504 voxels, more than max_voxels=503"):
        opened.read(next(case for case in opened.cases if case.name == "BraTS2021_00090"))


@pytest.mark.parametrize("wrong", ["links=outside", "max_voxels=0"])
def test_limits_that_cannot_be(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        read_arguments(["checkpoint=a", "data=b", wrong])
