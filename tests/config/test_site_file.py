from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError


def written(folder: Path, text: str) -> Path:
    file = folder / "site.yaml"
    file.write_text(text)
    return file


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    site = load_site_file(
        written(
            tmp_path,
            "name: CBICA\nstorage: state\nkey: /etc/key\nserver: {ca: ca.crt}\ndata: {root: scans}\n"
            "labels: {table: idh.csv, label_column: IDH}\n",
        )
    )
    assert site.storage == str(tmp_path / "state")
    assert site.key == "/etc/key"
    assert site.server.ca == str(tmp_path / "ca.crt")
    assert site.data.root == str(tmp_path / "scans")
    assert site.labels.table == str(tmp_path / "idh.csv")


def test_what_is_not_said_is_closed(tmp_path: Path) -> None:
    policy = load_site_file(written(tmp_path, "name: CBICA\nstorage: state\n")).policy
    assert policy.approval
    assert not policy.per_case
    assert policy.least_cases == 5


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name: A\nstorage: s\npolicy: {aproval: false}", "aproval"),
        ("name: A\nstorage: s\npolicy: {least_cases: 0}", "policy.least_cases"),
        ("name: A\nstorage: s\npolicy: {arrays: some}", "policy.arrays"),
        ("name: A\nstorage: s\npolicy: {metrics: [1]}", "policy.metrics"),
        ("name: A\nstorage: s\npolicy: {epsilon: -1}", "policy.epsilon"),
        ("name: A\nstorage: s\npartition: {role: both}", "partition.role"),
        ("name: A\nstorage: s\ndevice: tpu", "device"),
        ("name: A\nstorage: s\nlabels: {label_column: IDH}", "labels.label_column"),
        ("name: A", "storage"),
        ("storage: s", "name"),
        ("name: a/b\nstorage: s", "name"),
        ("[1", "site.yaml"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.yaml") as caught:
        load_site_file(written(tmp_path, text))
    assert key in str(caught.value)
