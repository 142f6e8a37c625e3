"""What Hydra makes of the same choice of files is made once in a process of tests, and its values set anew each time.

Most of a composition is to find, read and merge thirty files; the tests compose some two thousand times, and mostly the
same ones. Overrides of values, checks and errors are Hydra's own every time, and so is everything where another folder
than conf/ is searched. The processes that tests start compose as everybody does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hydra._internal import config_loader_impl as loader
from hydra._internal.defaults_list import DefaultsList, Overrides
from omegaconf import DictConfig

from fedbrats.config.folder import conf_folder

HYDRAS = (loader.create_defaults_list, loader.ConfigLoaderImpl._compose_config_from_defaults_list)
OWN = {"pkg://hydra.conf", f"file://{conf_folder()}", "structured://"}


def install(patch: pytest.MonkeyPatch) -> None:
    """Put it in Hydra's place until `patch` is undone."""
    listing, composing = HYDRAS
    listed: dict[Any, DefaultsList] = {}
    composed: dict[int, DictConfig] = {}  # by the identity of a list of files that `listed` keeps

    def choose(repo: Any, config_name: str, overrides_list: Sequence[Any], **more: Any) -> DefaultsList:
        if {f"{source.scheme()}://{source.path}" for source in repo.get_sources()} != OWN:
            return listing(repo, config_name, overrides_list, **more)
        overrides = Overrides(repo=repo, overrides_list=overrides_list)
        files = [o.input_line for o in overrides_list if repo.group_exists(o.key_or_group)]
        key = (config_name, *files, *more.items())
        if key not in listed:
            listed[key] = listing(repo, config_name, overrides_list, **more)
        known = listed[key]
        return DefaultsList(known.defaults, known.defaults_tree, overrides.config_overrides, known.overrides)

    def merge(self: Any, defaults: Any, repo: Any) -> DictConfig:
        if id(defaults) not in {id(known.defaults) for known in listed.values()}:
            return composing(self, defaults, repo)
        if id(defaults) not in composed:
            composed[id(defaults)] = composing(self, defaults, repo)
        return copy.deepcopy(composed[id(defaults)])

    patch.setattr(loader, "create_defaults_list", choose)
    patch.setattr(loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", merge)
