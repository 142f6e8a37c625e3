"""A federation of toy sites, each behind its own door, in this process; everything that crosses is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedbrats.config.schema import load_config
from fedbrats.config.site_file import Policy, SiteFile
from fedbrats.data.partition import Site
from fedbrats.engines.grids import InProcessGrid
from fedbrats.engines.sites import node_configs, set_identity
from fedbrats.federation import arms, bundle
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.final_test import test_all, write_privacy
from fedbrats.federation.server.joining import join
from fedbrats.federation.server.round_loop import serve
from fedbrats.federation.server.state import Federation
from fedbrats.federation.site.app import make_client_app
from fedbrats.federation.site.door import guarded
from fedbrats.metrics.table import facts_of
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import start
from fedbrats.runs.site_cases import read_site_cases
from tests.federation.toy import Quiet

STUDY = "glioma-1"


def names(site: str, **counts: int) -> dict[str, list[str]]:
    """Case names of a site by split."""
    return {split: [f"{site}-{split}-{i}" for i in range(n)] for split, n in counts.items()}


# B has too few cases to train or to validate on, under the policy that is there when nothing is said.
HOSPITALS = {"A": names("a", train=6, val=5, test=6), "B": names("b", train=3, val=4, test=5)}


def site_file(folder: Path, site: str, **policy: Any) -> SiteFile:
    return SiteFile(name=site, storage=str(folder / f"storage-{site}"), policy=Policy(**policy))


def egress_of(folder: Path, site: str) -> Path:
    return folder / f"storage-{site}" / "egress.jsonl"


@dataclass
class Doors(ClientApp):
    """One ClientApp for all sites, as `InProcessGrid` wants it, with what crossed the wire both ways."""

    apps: Mapping[str, ClientApp]
    sent: list[tuple[str, Message, Message]] = field(default_factory=list)  # site, question, reply

    def __call__(self, message: Message, context: Context) -> Message:
        site, question = str(context.node_config["site"]), bundle.sent_one(message)
        reply = self.apps[site](question, context)
        self.sent.append((site, question, reply))
        return bundle.read(reply)

    def read(self) -> list[tuple[str, Message, Message]]:
        """What crossed, with its arrays one by one."""
        return [(site, bundle.read(question), bundle.read(reply)) for site, question, reply in self.sent]


def doors(run: Path, folder: Path, policies: Mapping[str, Mapping[str, Any]] | None = None) -> Doors:
    """The sites of `run`, each behind the door of its policy, with its storage below `folder`."""
    given, app = policies or {}, make_client_app(str(run))
    sites = sorted(path.name for path in (run / "sites").iterdir())
    return Doors({s: guarded(app, site_file(folder, s, **given.get(s, {})), STUDY, run) for s in sites})


@dataclass
class Served:
    """What a server has at the end of a study."""

    fed: Federation
    rows: list[dict[str, Any]]
    doors: Doors


def federate(run: Path, server: Path, app: Doors) -> Served:
    """All questions of a study, asked in this process; what the server writes is in `server`."""
    config = load_config(run / "config.yaml")
    parts, sites = parts_of(config), sorted(app.apps)
    set_identity(1)
    grid = InProcessGrid(app, node_configs(sites))
    patients = parts.privacy if isinstance(parts.privacy, DpSgd) else None
    server.mkdir(parents=True, exist_ok=True)
    start(server, 0)
    cohorts = arms.cohorts(["federated"], sites, parts.algorithm)
    fed = Federation(
        algorithm=parts.algorithm,
        cohorts=cohorts,
        models={"federated": Model(parts.without_stays(initial_arrays(parts, config.train.init, ())))},
        folder=server,
        rounds=config.rounds,
        observer=Quiet(),
        regions=parts.regions,
        metrics=facts_of(parts.metrics, config.metrics.convention),
        trainable=parts.trainable,
        losses_stay=patients is not None,
        validation_stays=patients is not None and patients.validation == "home",
    )
    fed.members = join(grid, parts.signature, sites, 60.0, parts.stays)
    serve(grid, fed)
    tested = [
        Site(s, False, (), (), tuple(f"{s}#{i:04d}" for i in range(len(read_site_cases(run, s).test))))
        for s in sites
    ]
    rows = test_all(grid, fed, config, parts, tested)
    write_privacy(grid, fed, parts)
    return Served(fed, rows, app)


def content_of(reply: Message) -> RecordDict:
    assert not reply.has_error(), reply.error.reason
    return reply.content
