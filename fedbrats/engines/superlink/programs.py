"""The programs of a server and of a site, with every option that a deployment needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedbrats.config.server_file import VARIABLE as SERVER
from fedbrats.config.server_file import ServerFile
from fedbrats.config.site_file import VARIABLE as SITE
from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.folder import Folder
from fedbrats.credentials.keys import make_secret
from fedbrats.engines.superlink.processes import Program
from fedbrats.files import private_folder

SITE_TASK, SITE_WORKER = "flwr-clientapp", "fedbrats.engines.superlink.worker"
SERVER_TASK, SERVER_PROCESS = "flwr-serverapp", "fedbrats.engines.superlink.study_process"
LOOPBACK = "127.0.0.1"
SUPERLINK, SUPERNODE, SUPEREXEC = "superlink", "supernode", "superexec"


@dataclass(frozen=True)
class Link:
    """Between a site's two programs: where its SuperNode listens for its SuperExec, and the secret that both know."""

    host: str = LOOPBACK
    port: int = 9094  # Flower's own choice
    secret: Path | None = None  # None: in the site's storage


def server_programs(server: ServerFile, module: str) -> list[Program]:
    """SuperLink and SuperExec of the server; `module` is what a study is run by.

    The SuperLink takes registered keys only, over TLS; its SuperExec has to know a secret.
    """
    folder, logs = Folder(Path(server.federation)), Path(server.storage) / "logs"
    port = server_port(server)
    for file in (folder.authority, folder.server, folder.server_key, folder.secret):
        if not file.is_file():
            raise ConfigError(f"{file}: not there; `fedbrats federation init` makes it")
    private_folder(Path(server.storage))
    link = [
        *("superlink", "--host", server.listen, "--port", str(port)),
        *("--ssl-ca-certfile", str(folder.authority)),
        *("--ssl-certfile", str(folder.server), "--ssl-keyfile", str(folder.server_key)),
        *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.secret)),
        *(["--database", str(Path(server.storage) / "superlink.db")] if server.database else []),
    ]
    execute = [
        *("superexec", SERVER_TASK, f"{SERVER_PROCESS} {module}", "single"),
        *("--runtime-api-address", server_address(server), "--root-certificates", str(folder.authority)),
        *("--superexec-auth-secret-file", str(folder.secret)),
    ]
    return [
        Program(SUPERLINK, tuple(link), logs / "superlink.log"),
        Program(SUPEREXEC, tuple(execute), logs / "superexec.log"),
    ]


def site_programs(site: SiteFile, link: Link, only: str | None = None) -> list[Program]:
    """SuperNode and SuperExec of a site.

    Args:
        site: its configuration.
        link: between the two.
        only: of the two that is to run here, with what belongs to it: the SuperNode has the key and makes the secret,
            the SuperExec needs the storage. None: both.

    Raises:
        ConfigError: what is needed is not there.
    """
    secret, logs = link.secret or Path(site.storage) / "superexec.secret", Path(site.storage) / "logs"
    if only != SUPERNODE:
        private_folder(Path(site.storage))
    if only != SUPEREXEC:
        _check_kit(site)
        make_secret(private_folder(secret.parent) / secret.name)
    elif not secret.is_file():
        raise ConfigError(f"{secret}: not there; the SuperNode makes it when it starts")
    node = [
        *("supernode", "--superlink", site.server.address, "--root-certificates", site.server.ca),
        *("--auth-supernode-private-key", site.key, "--host", link.host, "--port", str(link.port)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
    ]
    execute = [
        *("superexec", SITE_TASK, SITE_WORKER, "resident"),
        *("--runtime-api-address", f"{link.host}:{link.port}", "--insecure"),
        *("--superexec-auth-secret-file", str(secret)),
    ]
    return [
        Program(SUPERNODE, tuple(node), logs / "supernode.log"),
        Program(SUPEREXEC, tuple(execute), logs / "superexec.log"),
    ]


def _check_kit(site: SiteFile) -> None:
    for key, value in (
        ("key", site.key),
        ("server.ca", site.server.ca),
        ("server.address", site.server.address),
    ):
        if not value or (key != "server.address" and not Path(value).is_file()):
            raise ConfigError(f"{key}={value!r}: not there; it comes with the kit of the site")


def server_port(server: ServerFile) -> int:
    """Port of the SuperLink."""
    return server.port or Folder(Path(server.federation)).read().port


def server_address(server: ServerFile) -> str:
    """The SuperLink as the server's own processes call it; its certificate always holds 127.0.0.1."""
    return f"{server.superlink or LOOPBACK}:{server_port(server)}"


def environment(file: Path, storage: str | None, role: str) -> dict[str, str]:
    """Environment of the programs: their configuration file, and where Flower keeps its own, below `storage`."""
    variable = {"server": SERVER, "site": SITE}[role]
    home = {"FLWR_HOME": str(Path(storage) / "flower")} if storage else {}
    return {variable: str(file.resolve()), **home}
