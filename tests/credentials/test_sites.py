"""The folder of a federation and its record, as sites come, get other keys and go."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from fedbrats.config.site_file import Policy, load_site_file
from fedbrats.config.targets import ConfigError
from fedbrats.credentials import kit as kits
from fedbrats.credentials import sites
from fedbrats.credentials.certificates import now
from fedbrats.credentials.expiry import expiries, faults
from fedbrats.credentials.folder import Folder, begin
from fedbrats.credentials.keys import make_site_key, read_public_key, read_site_key
from fedbrats.credentials.renewing import renew_authority, renew_server

TODAY = now()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return begin(tmp_path / "federation", "fed.example.org", ["10.0.0.1"], 443)


def contents(folder: Folder) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.path.rglob("*")) if file.is_file()}


def test_only_its_owner_reads_what_is_secret(folder: Folder) -> None:
    kit = sites.enrol(folder, "CBICA")
    secret = [folder.authority_key, folder.server_key, folder.secret, folder.record, kit / "site.key"]
    assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
    folders = [folder.path, *(path for path in folder.path.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    renew_server(folder, other_key=True)
    renew_authority(folder, other_key=True)
    assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
    assert list(folder.path.rglob(".partial*")) == []


def test_nothing_is_overwritten_by_a_second_beginning(folder: Folder) -> None:
    before = contents(folder)
    with pytest.raises(ConfigError, match="nothing in it is overwritten"):
        begin(folder.path, "other.example.org", [], 8000)
    assert contents(folder) == before


def test_a_beginning_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedbrats.credentials.folder.write_record", full)
    with pytest.raises(OSError, match="No space"):
        begin(tmp_path / "federation", "fed", [], 8000)
    assert list(tmp_path.iterdir()) == []


def test_a_kit_has_what_a_site_needs(folder: Folder) -> None:
    kit = sites.enrol(folder, "Univ. Köln")
    assert sorted(file.name for file in kit.iterdir()) == [
        *("README.txt", "ca.crt", "site.key", "site.key.pub", "site.yaml")
    ]
    site = load_site_file(kit / "site.yaml")
    assert (site.name, site.server.address) == ("Univ. Köln", "fed.example.org:443")
    assert site.policy == Policy()
    assert Path(site.server.ca).read_bytes() == folder.authority.read_bytes()
    (key,) = folder.read().sites["Univ. Köln"]
    assert read_site_key(Path(site.key)) == key.public
    readme = (kit / "README.txt").read_text()
    assert key.fingerprint in readme
    assert folder.read().certificates[0].fingerprint in readme


def test_a_key_made_at_the_site_never_leaves_it(folder: Folder, tmp_path: Path) -> None:
    public = make_site_key(tmp_path / "site.key")
    kit = sites.enrol(folder, "CBICA", tmp_path / "site.key.pub")
    assert sorted(file.name for file in kit.iterdir()) == ["README.txt", "ca.crt", "site.yaml"]
    assert folder.read().keys_at(now()) == [("CBICA", public)]
    assert not any(b"OPENSSH PRIVATE" in content for content in contents(folder).values())


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ("a/b", "slash"),
        ("..", "dot"),
        ("server", "word of the results"),
        ("CA", "word of `renew`"),
        ("cbica", "too like CBICA"),
        ("CBICA", "enrolled already"),
        ("", "empty"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_changes_nothing(site: str, words: str, folder: Folder) -> None:
    sites.enrol(folder, "CBICA")
    before = contents(folder)
    with pytest.raises(ConfigError, match=words):
        sites.enrol(folder, site)
    assert contents(folder) == before


def test_a_key_is_of_one_site_once(folder: Folder, tmp_path: Path) -> None:
    make_site_key(tmp_path / "key")
    sites.enrol(folder, "A", tmp_path / "key.pub")
    with pytest.raises(ConfigError, match="is or was that of A"):
        sites.enrol(folder, "B", tmp_path / "key.pub")
    sites.revoke(folder, "A")
    for site in ("A", "B"):
        with pytest.raises(ConfigError, match="is or was that of A"):
            sites.enrol(folder, site, tmp_path / "key.pub", again=True)


def test_a_revoked_site_is_let_in_no_more_and_comes_back_only_by_word(folder: Folder) -> None:
    sites.enrol(folder, "A")
    sites.enrol(folder, "B")
    assert sites.revoke(folder, "A")
    assert [site for site, _ in folder.read().keys_at(now())] == ["B"]
    assert not sites.revoke(folder, "A")
    with pytest.raises(ConfigError, match="--again"):
        sites.enrol(folder, "A")
    with pytest.raises(ConfigError, match="no key that holds"):
        sites.renew_key(folder, "A")
    sites.enrol(folder, "A", again=True)
    old, new = folder.read().sites["A"]
    assert old.revoked
    assert new.revoked is None
    assert [site for site, _ in folder.read().keys_at(now())] == ["A", "B"]
    with pytest.raises(ConfigError, match="enrolled are: A, B"):
        sites.revoke(folder, "C")


def test_two_keys_of_a_site_overlap(folder: Folder) -> None:
    kit = sites.enrol(folder, "A", at=TODAY)
    later = sites.renew_key(folder, "A", at=TODAY + timedelta(days=350), overlap=10)
    assert (later / "site.key").read_bytes() != (kit / "site.key").read_bytes()
    assert not (later / "site.yaml").exists()  # the site has its own by now
    both = [read_public_key(folder / "site.key.pub") for folder in (kit, later)]

    def held(day: int) -> list[str]:
        return [public for _, public in folder.read().keys_at(TODAY + timedelta(days=day))]

    assert (held(351), held(361), held(716)) == (both, both[1:], [])
    sites.renew_key(folder, "A", at=TODAY + timedelta(days=351), overlap=100)
    assert held(361) == [both[1], held(361)[1]]  # an overlap makes no key hold longer than it did


def test_what_expires_is_said_30_days_before(folder: Folder) -> None:
    sites.enrol(folder, "A", days=60)
    renew_server(folder, days=100)

    def states(day: int) -> dict[str, str]:
        return {row.what: row.state for row in expiries(folder, TODAY + timedelta(days=day))}

    assert states(29) == {"authority": "valid", "server": "valid", "A": "valid"}
    assert states(31) == {"authority": "valid", "server": "valid", "A": "soon"}
    assert states(61) == {"authority": "valid", "server": "valid", "A": "expired"}
    assert states(71)["server"] == "soon"
    assert states(101)["server"] == "expired"
    (row,) = [row for row in expiries(folder, TODAY + timedelta(days=61)) if row.what == "A"]
    assert row.fix == "fedbrats federation enrol A --again"


def test_a_server_of_the_older_authority_says_what_is_next(folder: Folder) -> None:
    renew_authority(folder, other_key=True)
    rows = expiries(folder)
    assert [row.state for row in rows] == ["valid", "replaced", "valid"]
    assert "once all sites hold the new ca.crt" in rows[-1].fix
    renew_server(folder)
    assert expiries(folder)[-1].fix == ""


def test_an_interrupted_renewal_is_found_and_mended(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> str:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("fedbrats.credentials.renewing.certificate_text", killed)
        with pytest.raises(Killed):
            renew_server(folder, other_key=True)
        assert faults(folder) == [
            "server.key does not belong to server.crt: `fedbrats federation renew server`"
        ]
        with pytest.raises(Killed):
            renew_authority(folder, other_key=True)
        with pytest.raises(ConfigError, match="renew ca --new-key` again"):
            folder.signing()
    renew_authority(folder, other_key=True)
    renew_server(folder)
    assert faults(folder) == []


def test_an_authority_that_did_not_sign_for_the_server_is_found(folder: Folder, tmp_path: Path) -> None:
    other = begin(tmp_path / "other", "fed.example.org", [], 8000)
    folder.authority.write_text(other.authority.read_text())
    assert faults(folder) == [
        "server.crt was not signed by an authority of ca.crt: `fedbrats federation renew server`"
    ]


def test_the_authoritys_key_may_lie_elsewhere(folder: Folder, tmp_path: Path) -> None:
    folder.authority_key.rename(tmp_path / "offline")
    sites.enrol(folder, "A")
    assert faults(folder) == []
    with pytest.raises(ConfigError, match="put it back"):
        renew_server(folder)


def test_sites_enrolled_at_once_are_all_in_the_record(folder: Folder) -> None:
    names = [f"S{number}" for number in range(8)]
    threads = [threading.Thread(target=sites.enrol, args=(folder, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folder.read().sites) == names


def test_a_record_of_another_form_or_no_record_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`fedbrats federation init`"):
        Folder(tmp_path).read()
    text = folder.record.read_text()
    for wrong in (text.replace('"form": 1', '"form": 2'), "[]", "{", text.replace('"port"', '"part"')):
        folder.record.write_text(wrong)
        with pytest.raises(ConfigError, match=re.escape(str(folder.record))):
            folder.read()


def test_a_kit_that_fails_leaves_the_record_as_it_was(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kits, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        sites.enrol(folder, "A")
    assert {k: v for k, v in contents(folder).items() if not k.endswith(".lock")} == before


def test_every_value_of_the_policy_stands_in_the_kit(folder: Folder) -> None:
    text = (sites.enrol(folder, "A") / "site.yaml").read_text()
    assert [name for name in Policy.__dataclass_fields__ if f"  {name}: " not in text] == []
