"""What one process keeps warm for the sites it serves: the parts of the configuration, one network, the open sites."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from flwr.app import ArrayRecord
from torch import Tensor, nn

from fedbrats import arrays
from fedbrats.config.schema import LOCAL, POOLED, POOLED_ROW, load_config
from fedbrats.devices import pick_device
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.wire import from_record
from fedbrats.inference.members import Member, load_localiser
from fedbrats.models.build import channels_last
from fedbrats.training.amount import BOTH
from fedbrats.training.steps import StepCounts


class Warm:
    """One network for all sites of a process, and which model is loaded in it."""

    def __init__(
        self, run_folder: Path, steps: StepCounts | None = None, baselines: Collection[str] = ()
    ) -> None:
        """Read the run's configuration and build what it names.

        Args:
            run_folder: with its config.yaml.
            steps: where the steps of the sites are counted, if anybody looks.
            baselines: the sites whose baselines are trained here, in a simulation; an institution has none.

        Raises:
            ConfigError: it is not a configuration of this version, or cannot be built.
        """
        self.folder, self.counted = run_folder, steps
        self.config = load_config(run_folder / "config.yaml")
        self._baselines = tuple(baselines)
        self.parts = parts_of(self.config)
        self.device = pick_device(self.config.runtime.device)
        self.amp = self.device.type == "cuda" and self.config.runtime.amp
        self._loaded: tuple[ArrayRecord, tuple[str, int] | None] | None = None
        self._localiser: Member | None = None

    @cached_property
    def network(self) -> nn.Module:
        """The network of the process, built when a question needs it: joining and the survey do not."""
        return channels_last(copy.deepcopy(self.parts.network).to(self.device))

    @cached_property
    def _counters(self) -> dict[str, Tensor]:
        """What its counters are at the start, read before any model is loaded."""
        return {n: b.clone() for n, b in self.network.named_buffers() if not b.is_floating_point()}

    def load(
        self, record: ArrayRecord, own: dict[str, Tensor], owner: tuple[str, int] | None, *, change: bool
    ) -> None:
        """Put a received model into the network, unless it is there already.

        Counters, which do not travel, start again from zero.

        Args:
            record: what was received.
            own: arrays that are not received because they stay at the site.
            owner: whose they are, site and round; None if there are none.
            change: whether the caller will change the network, so that the next one has to load again.

        Raises:
            BadArrays: the record does not hold the agreed arrays.
        """
        loaded, self._loaded = self._loaded, None  # until nothing can fail any more
        counters = self._counters
        if loaded is None or loaded[0] is not record or loaded[1] != owner:
            expected = {name: form for name, form in self.parts.signature.items() if name not in own}
            received = from_record(record, expected)
            arrays.load(
                self.network, received | {name: arrays.as_numpy(tensor) for name, tensor in own.items()}
            )
            for name, buffer in self.network.named_buffers() if counters else ():
                if name in counters:
                    buffer.copy_(counters[name])
        if not change:
            self._loaded = (record, owner)

    @property
    def baseline_arms(self) -> list[str]:
        """The arms of the baselines that are trained here: those of the configuration, without privacy."""
        local = [f"{LOCAL}:{site}" for site in self._baselines] if LOCAL in self.config.arms else []
        pooled = [POOLED, POOLED_ROW][: 1 + (self.config.train.pooled_steps == BOTH)]
        return local + (pooled if self._baselines and POOLED in self.config.arms else [])

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The arrays that stay at the sites, as every site starts with them."""
        start = initial_arrays(self.parts, self.config.train.init, self.config.run.trust)
        return {name: start[name] for name in self.parts.stays}

    def localiser(self) -> Member:
        """The model that finds the tumour first (`inference.locate`), loaded once.

        Raises:
            ConfigError: no such model.
        """
        if self._localiser is None:
            asked = str(self.config.inference.locate)
            self._localiser = load_localiser(asked, self.device, self.config.run.trust)
        return self._localiser
