"""What is started at a server and at a site, together or each in a container of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.server_file import ServerFile
from fedbrats.config.site_file import ServerAddress, SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.folder import begin
from fedbrats.engines.superlink.processes import HEALTH, alone
from fedbrats.engines.superlink.programs import Link, environment, server_programs, site_programs


@pytest.fixture
def site(tmp_path: Path) -> SiteFile:
    for name in ("site.key", "ca.crt"):
        (tmp_path / name).write_text(name)
    server = ServerAddress("fed.example.org:8443", str(tmp_path / "ca.crt"))
    return SiteFile("A", str(tmp_path / "storage"), str(tmp_path / "site.key"), server)


def value(arguments: tuple[str, ...], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_both_programs_of_a_site_speak_over_this_machine_with_a_secret_of_its_storage(site: SiteFile) -> None:
    node, execute = (program.arguments for program in site_programs(site, Link(port=9000)))
    assert value(node, "--host") + ":" + value(node, "--port") == value(execute, "--runtime-api-address")
    assert value(execute, "--runtime-api-address") == "127.0.0.1:9000"
    secret = value(node, "--superexec-auth-secret-file")
    assert secret == value(execute, "--superexec-auth-secret-file")
    assert len(Path(secret).read_bytes()) == 32
    assert Path(secret).parent == Path(site.storage)


def test_a_supernode_alone_makes_the_secret_and_needs_no_storage(site: SiteFile, tmp_path: Path) -> None:
    secret = tmp_path / "link" / "secret"
    (node,) = alone(site_programs(site, Link("0.0.0.0", secret=secret), "supernode"), "supernode")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert value(node.arguments, "--host") == "0.0.0.0"
    assert value(node.arguments, "--auth-supernode-private-key") == site.key
    assert not Path(site.storage).exists()


def test_a_superexec_alone_waits_for_the_secret_and_needs_no_key(site: SiteFile, tmp_path: Path) -> None:
    link = Link("supernode", secret=tmp_path / "link" / "secret")
    Path(site.key).unlink()
    with pytest.raises(ConfigError, match="the SuperNode makes it"):
        site_programs(site, link, "superexec")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "secret").write_bytes(b"0" * 32)
    (execute,) = alone(site_programs(site, link, "superexec"), "superexec")
    assert value(execute.arguments, "--runtime-api-address") == "supernode:9094"
    assert site.key not in execute.arguments
    with pytest.raises(ConfigError, match="kit of the site"):
        site_programs(site, link, "supernode")


def test_a_program_alone_says_what_it_says_here_and_how_it_is(site: SiteFile) -> None:
    programs = site_programs(site, Link())
    assert all(program.log for program in programs)
    for name in ("supernode", "superexec"):
        (program,) = alone(programs, name)
        assert program.log is None
        assert value(program.arguments, "--health-server-address") == HEALTH
    assert "FLWR_HOME" not in environment(Path("site.yaml"), None, "site")


@pytest.mark.parametrize(("host", "address"), [(None, "127.0.0.1:8000"), ("superlink", "superlink:8000")])
def test_the_superexec_of_a_server_finds_the_superlink(
    host: str | None, address: str, tmp_path: Path
) -> None:
    begin(tmp_path / "federation", "fed.example.org", [], 8443)
    server = ServerFile(str(tmp_path / "federation"), str(tmp_path / "storage"), superlink=host, port=8000)
    link, execute = (program.arguments for program in server_programs(server, "some.module"))
    assert value(execute, "--runtime-api-address") == address
    assert value(link, "--port") == "8000"
