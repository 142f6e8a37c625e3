"""The Flower app that a study is submitted as: it names what is installed and holds no code."""

from __future__ import annotations

from fedbrats import __version__

STUDY = "study"  # the one key of its run configuration

_PYPROJECT = f"""\
[project]
name = "fedbrats"
version = "{__version__}"
description = "The shell of a study; whoever runs it has fedbrats installed"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedbrats"

[tool.flwr.app.components]
serverapp = "fedbrats.commands.study.server_app:app"
clientapp = "fedbrats.engines.superlink.client_app:app"

[tool.flwr.app.config]
{STUDY} = ""
"""
_LICENSE = "Apache-2.0, see the package fedbrats.\n"


def thin_app() -> bytes:
    """The app as Flower packs it (a FAB): two files of text and a list of them."""
    from flwr.cli.build import build_fab_from_files

    files = {"pyproject.toml": _PYPROJECT.encode(), "LICENSE": _LICENSE.encode()}
    return bytes(build_fab_from_files(files)[0])
