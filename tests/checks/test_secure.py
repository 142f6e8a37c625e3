"""What secure aggregation cannot be combined with fails before any work, with the key and the fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedbrats.checks.config import checked
from fedbrats.checks.plan import check_dealt
from fedbrats.checks.secure import check_secure_sites
from fedbrats.commands.study.starting import begin
from fedbrats.config.server_file import load_server_file
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.folder import begin as begin_federation
from fedbrats.credentials.sites import enrol
from fedbrats.data.institutions import OWN
from fedbrats.data.partition import Site
from fedbrats.federation.parts import parts_of
from tests.tiny import MODEL, tiny

ON = "privacy.secure_aggregation=true"
SCAFFOLD = ("strategy=scaffold", "train/optimizer=sgd_plain", "train.clip_norm=null")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("strategy=fedprox",),
        ("strategy=fedadam",),
        ("privacy=dp_sgd", "arms=[federated]"),
        ("personalization=bn_local", "model.norm=batch"),
        ("privacy.secure_threshold=0.5",),
    ],
)
def test_what_goes_with_it(options: tuple[str, ...], tmp_path: Path) -> None:
    assert parts_of(checked(tiny(tmp_path, *options, ON))).secure is not None
    assert parts_of(checked(tiny(tmp_path, *(o for o in options if "secure" not in o)))).secure is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("strategy=median",), r"strategy \(.*Median\) needs more of the replies.*secure_aggregation=true"),
        (
            ("strategy=fedcostwavg",),
            r"strategy \(FedCostWAvg\) needs more.*strategy=fedavg, fedprox or fedadam",
        ),
        (SCAFFOLD, r"strategy \(Scaffold\) needs more"),
        (("privacy=central",), r"privacy=central exclude each other.*privacy=dp_sgd"),
        (("arms=[pooled]",), r"nothing is sent in arms=\['pooled'\]; add federated"),
        (
            ("personalization=bn_local", "model.norm=batch", "personalization.unseen=average"),
            r"personalization\.unseen=average exclude each other.*secure_aggregation=false",
        ),
        (("privacy.secure_threshold=0.2",), r"privacy\.secure_threshold=0\.2"),
    ],
)
def test_what_does_not(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        checked(tiny(tmp_path, *options, ON))


def sites(count: int, cases: int = 2) -> list[Site]:
    found = [Site(f"S{i}", False, tuple(f"c{i}-{k}" for k in range(cases)), (), ()) for i in range(count)]
    return [*found, Site("unseen", True, (), (), ("x",)), Site("no training", False, (), (), ("y",))]


def test_no_room_for_their_cases(tmp_path: Path) -> None:
    check_secure_sites(parts_of(checked(tiny(tmp_path, ON))), sites(3))
    wide = parts_of(checked(tiny(tmp_path, ON, f"privacy.secure_range={2.0**40}")))
    with pytest.raises(ConfigError, match=r"leave 19 bits.*lower privacy\.secure_range"):
        check_secure_sites(wide, sites(3))
    check_secure_sites(parts_of(checked(tiny(tmp_path))), sites(1))


def test_a_site_of_a_deployment_sees_no_other_and_is_not_counted(tmp_path: Path) -> None:
    found = checked(tiny(tmp_path, ON))
    own = replace(found, partition=replace(found.partition, method=OWN))
    check_dealt(own, sites(1), {})
    with pytest.raises(ConfigError, match="here are 1"):
        check_dealt(found, sites(1), {})


def test_a_study_of_two_sites_does_not_begin(tmp_path: Path) -> None:
    federation = begin_federation(tmp_path / "federation", "localhost", [], 18320)
    for name in ("A", "B"):
        enrol(federation, name)
    file = tmp_path / "server.yaml"
    file.write_text("federation: federation\nstorage: server\n")
    with pytest.raises(ConfigError, match="needs 3 sites that train, here are 2"):
        begin(load_server_file(file), "glioma", [*MODEL, ON])
    assert not (tmp_path / "server").exists()
