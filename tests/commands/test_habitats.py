"""The command that finds sub-regions: maps on the grid of the case, tables, no test case in the search, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.habitats import command
from fedbrats.commands.habitats.arguments import HabitatConfig, read_arguments
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase

SMALL = [
    "trials=2",
    "initial=2",
    "steps=2",
    "voxels=100",
    "rounds=1",
    "local_steps=2",
    "batch=32",
    "clusters=[2,3]",
]
PHANTOM = ["data.phantom.sites={TCIA01:5,TCIA02:4,CBICA:3,TCIA13:1}", "data.phantom.shape=[32,32,24]"]


def rows_of(output: Path, table: Any) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = table.rows(output)
    return rows


@pytest.fixture(scope="module")
def found(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]], str]:
    """One run with a made-up survival: its output, whose images were read by the end of the search, what was said."""
    folder, read, said = tmp_path_factory.mktemp("habitats"), dict[str, set[str]](all=set()), list[str]()
    names = [
        f"BraTS19_{site}_{n}_1" for site, count in (("TCIA01", 5), ("TCIA02", 4)) for n in range(1, count + 1)
    ]
    lines = [f"{name},{100 + 37 * i % 300}" for i, name in enumerate(names)]
    (folder / "days.csv").write_text("\n".join(["case,survival_days", *lines, "BraTS19_Other_1_1,7", ""]))
    image, search = CachedCase.image.fget, command.search
    assert image is not None

    def noted(case: CachedCase) -> np.memmap:
        read["all"].add(case.name)
        return image(case)

    def searched(*arguments: Any) -> Sequence[Any]:
        tried = search(*arguments)
        read["search"] = set(read["all"])
        return tried

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CachedCase, "image", property(noted))
        patch.setattr(command, "search", searched)
        words = [
            *SMALL,
            *PHANTOM,
            f"data.cache={cache}",
            f"output={folder}",
            f"survival={folder / 'days.csv'}",
        ]
        rows = command.find_habitats(*read_arguments(words), said.append)
    assert all(row["status"] == "ok" for row in rows)
    return folder, read, "\n".join(said)


def test_the_search_reads_no_test_case_and_the_maps_are_of_all(
    found: tuple[Path, dict[str, set[str]], str],
) -> None:
    output, read, said = found
    rows = rows_of(output, command.CASES)
    tests = {row["case"] for row in rows if row["split"] == "test"}
    assert len(rows) == 13
    assert tests
    assert read["search"] == {row["case"] for row in rows} - tests
    assert f"on {len(tests)} test cases" in said
    assert {row["risk"] for row in rows} == {"high", "low"}


def test_maps_fill_the_tumour_on_the_grid_of_the_case_and_shares_are_theirs(
    found: tuple[Path, dict[str, set[str]], str], cache: Path
) -> None:
    output = found[0]
    (root,) = (file.parent for file in cache.glob("phantom/*/BraTS19_TCIA01_1_1"))
    row = next(row for row in rows_of(output, command.CASES) if row["case"] == "BraTS19_TCIA01_1_1")
    truth = nib.load(next((root / row["case"]).glob("*_seg.nii*")))
    file = nib.load(output / f"{row['case']}_habitats.nii.gz")
    np.testing.assert_allclose(file.affine, truth.affine)
    labels = np.asarray(file.dataobj)
    np.testing.assert_array_equal(labels > 0, np.asarray(truth.dataobj) > 0)
    shares = [float(row[name] or 0) for name in command.SHARES]
    assert shares == pytest.approx([(labels == n + 1).sum() / (labels > 0).sum() for n in range(len(shares))])


def test_what_was_tried_and_what_it_is_worth_stand_in_tables(
    found: tuple[Path, dict[str, set[str]], str],
) -> None:
    output, _, said = found
    tried = rows_of(output, command.SEARCH)
    assert [row["step"] for row in tried] == ["1", "2", "3", "4"]
    for row in tried:  # alpha 0.5, equation 3
        expected = 0.5 * float(row["stability_loss"]) + 0.5 * np.log(float(row["p"]) / 0.05)
        assert float(row["loss"]) == pytest.approx(expected)
    best = min(tried, key=lambda row: float(row["loss"]))
    assert f"found: gamma {float(best['gamma']):.2f}, {best['clusters']} sub-regions" in said
    table = rows_of(output, command.STABILITY)
    assert [(r["clusters"], r["values"]) for r in table] == [
        (n, v) for n in "23" for v in ("autoencoder", "intensities")
    ]
    same = next(r for r in table if (r["clusters"], r["values"]) == (best["clusters"], "autoencoder"))
    assert float(same["stability"]) == pytest.approx(
        1 - float(best["stability_loss"])
    )  # trained anew to the same


def test_without_survival_stability_is_all_there_is() -> None:
    assert HabitatConfig().weight == 1
    assert HabitatConfig(survival="days.csv").weight == 0.5
    assert HabitatConfig(survival="days.csv", alpha=0.25).weight == 0.25


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("gamma=[0,1]", "gamma=.0.0, 1.0.: from and to, above 0"),
        ("clusters=[5,3]", "clusters=.5, 3.: from and to"),
        ("trials=0", "trials=0: must be 1 or more"),
        ("alpha=0.5", "alpha=0.5: significance needs survival"),
        ("lr=0", "lr=0.0"),
        ("trial=3", "trial"),
    ],
)
def test_what_it_cannot_do_is_refused_by_key(argument: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_arguments([argument])


def test_a_table_of_others_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "days.csv").write_text("case,survival\nsomebody,7\n")
    words = [*PHANTOM, f"data.cache={cache}", f"survival={tmp_path / 'days.csv'}"]
    assert command.main(words) == 2
    assert "lists none of the 13 cases" in capsys.readouterr().err
