"""From the node `model` of a configuration to a network that is known to take its patches."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.config.schema import Config, InputConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.intensity import KINDS
from fedbrats.data.patches import NORMAL
from fedbrats.data.whole import CROPS
from fedbrats.losses.nodes import is_of_nodes
from fedbrats.losses.semantic import is_presence
from fedbrats.models.facts import has_dropout
from fedbrats.models.node import arguments, channels_of
from fedbrats.tasks.segmentation import is_softmax, predicted_regions, targets

# By network on the meta device, whether it is in training, and sides of a patch: several checks ask for the same.
_OUTPUTS: WeakKeyDictionary[nn.Module, dict[tuple[bool, tuple[int, ...]], Sequence[Tensor]]]
_OUTPUTS = WeakKeyDictionary()


class Resized(nn.Module):
    """A 2D network behind a fixed size: slices are resized to it (bilinear), logits back."""

    def __init__(self, network: nn.Module, size: Sequence[int]) -> None:
        """`size` in pixels."""
        super().__init__()
        self.network, self.size = network, tuple(size)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images` [batch, 4, A, B], at their own size."""
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
        outputs = self.network(interpolate(images, self.size, **options))
        if isinstance(outputs, Tensor):
            return interpolate(outputs, images.shape[2:], **options)
        return [interpolate(outputs[0], images.shape[2:], **options), *outputs[1:]]


class Chosen(nn.Module):
    """A network that sees some channels of the images only; those it does not see may hold anything."""

    def __init__(self, network: nn.Module, channels: Sequence[int]) -> None:
        """`channels` are counted in the order of `MODALITIES`."""
        super().__init__()
        self.network, self.channels = network, list(channels)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """What the network makes of those channels of `images` [batch, 4, ...]."""
        outputs: Tensor | list[Tensor] = self.network(images[:, self.channels])
        return outputs


def input_rules(model: Mapping[str, Any]) -> InputConfig:
    """What the network takes, from `model.input`; missing keys have their defaults.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    return copy.deepcopy(_rules(json.dumps(model.get("input") or {}, default=_plain)))  # the caller's own


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else str(value)


@lru_cache(64)
def _rules(text: str) -> InputConfig:
    """Of a node `model.input` as JSON; a quarter of the time of a check was to read the same one six times."""
    model = {"input": json.loads(text)}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(InputConfig), model["input"])
        rules: InputConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except Exception as error:
        raise ConfigError(f"model.input: {error}") from error
    if len(rules.patch) not in (2, 3) or min(rules.patch) < 8:
        raise ConfigError(f"model.input.patch={rules.patch}: two or three sides of 8 or more voxels.")
    if rules.multiple < 1:
        raise ConfigError(f"model.input.multiple={rules.multiple}: must be 1 or more.")
    if not rules.planes or set(rules.planes) - NORMAL.keys() or len(set(rules.planes)) < len(rules.planes):
        raise ConfigError(
            f"model.input.planes={rules.planes}: name each of {', '.join(NORMAL)} at most once."
        )
    if rules.resize and (len(rules.patch) != 2 or len(rules.resize) != 2 or min(rules.resize) < 8):
        raise ConfigError(f"model.input.resize={rules.resize}: two sides of a 2D network, or null.")
    channels_of(model)
    if rules.crop not in CROPS:
        raise ConfigError(f"model.input.crop={rules.crop}: choose one of {', '.join(CROPS)}.")
    if rules.normalise not in KINDS:
        raise ConfigError(f"model.input.normalise={rules.normalise}: choose one of {', '.join(KINDS)}.")
    return rules


def build_network(model: Mapping[str, Any]) -> nn.Module:
    """The network of a `model` node, weights from torch's global generator."""
    return wrapped(instantiate(arguments(model)), model)


def wrapped(network: nn.Module, model: Mapping[str, Any]) -> nn.Module:
    """`network` behind the modalities and the fixed size of its `model` node, if it has any."""
    resize, seen = input_rules(model).resize, channels_of(model)
    if seen is not None:
        network = Chosen(network, seen)
    return Resized(network, resize) if resize else network


def dimensions(network: nn.Module) -> int:
    """2 or 3, by looking at the convolutions.

    Raises:
        ValueError: there are none, or both kinds.
    """
    found = {2 for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    found |= {3 for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)}
    if len(found) != 1:
        raise ValueError(f"{type(network).__name__} has {'no' if not found else '2D and 3D'} convolutions.")
    return found.pop()


def channels_last(network: nn.Module) -> nn.Module:
    """`network` in channels-last order: faster on a GPU with bf16, and measured a fifth faster on CPUs in 3D."""
    order = torch.channels_last if dimensions(network) == 2 else torch.channels_last_3d
    return network.to(memory_format=order)  # type: ignore[call-overload]


def patch_of(config: Config) -> list[int]:
    """Sides of a training patch in voxels."""
    return list(config.train.patch or input_rules(config.model).patch)


def window_of(config: Config) -> list[int]:
    """Sides of the inference window in voxels."""
    return list(config.inference.window or patch_of(config))


def regions_of(config: Config) -> tuple[str, ...]:
    """The regions that the configured network predicts, found by building it without memory."""
    with torch.device("meta"):
        network = build_network(config.model)
    return predicted_regions(output_channels(network, patch_of(config)))


def probe(network: nn.Module, sides: Sequence[int]) -> tuple[int, int]:
    """Channels of the output and number of outputs, found by sending a patch of nothing through on the meta device.

    Raises:
        ValueError: what the network itself says about a patch that it cannot take.
    """
    outputs = _outputs(network, sides)
    return int(outputs[0].shape[1]), len(outputs)


def _outputs(network: nn.Module, sides: Sequence[int]) -> Sequence[Tensor]:
    known = _OUTPUTS.setdefault(network, {})
    kind = (network.training, tuple(sides))
    if kind not in known:
        with torch.no_grad():
            outputs = network(torch.zeros(1, 4, *sides, device="meta"))
        known[kind] = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return known[kind]


def output_shape(network: nn.Module, sides: Sequence[int]) -> tuple[int, ...]:
    """Shape of the output of `network`, on the meta device, for one sample: [1, C, ...], or [1, C] of a whole case.

    Raises:
        ValueError: what the network itself says about a patch that it cannot take.
    """
    return tuple(_outputs(network, sides)[0].shape)


def output_channels(network: nn.Module, sides: Sequence[int]) -> int:
    """Number of output channels of `network`, which is on the meta device."""
    return probe(network, sides)[0]


def check_network(config: Config, network: nn.Module) -> int:
    """Check that `network`, built on the meta device, takes the patch and the window of `config`.

    Returns:
        Its output channels.

    Raises:
        ConfigError: naming the key and the fix.
    """
    rules, kind = input_rules(config.model), dimensions(network)
    if config.inference.mc_passes and not has_dropout(network):
        raise ConfigError(
            f"inference.mc_passes={config.inference.mc_passes}: the network has no dropout, so all passes would be "
            "equal; set model.dropout, or inference.mc_passes=0."
        )
    for key, sides in (("train.patch", patch_of(config)), ("inference.window", window_of(config))):
        given = config.train.patch if key == "train.patch" else config.inference.window
        name = key if given else "model.input.patch"
        if len(sides) != kind:
            raise ConfigError(
                f"{name}={sides}: the network is {kind}D and takes {kind} sides; set {key}=null for "
                f"the model's own {list(rules.patch)}."
            )
        if not rules.resize and any(side % rules.multiple for side in sides):
            nearest = [max(1, round(side / rules.multiple)) * rules.multiple for side in sides]
            raise ConfigError(
                f"{name}={sides}: sides must be multiples of {rules.multiple} for this network, such as "
                f"{nearest}."
            )
        network.train(key == "train.patch")
        try:
            channels, outputs = probe(network, sides)
            predicted_regions(channels)
        except Exception as error:
            raise ConfigError(f"{name}={sides}: the network does not take it: {error}") from error
        weights = config.train.deep_supervision
        if network.training and weights is not None and len(weights) != outputs:
            raise ConfigError(
                f"train.deep_supervision={weights}: {len(weights)} weights, but the network has {outputs} "
                "outputs in training; set one weight for each, or null."
            )
    return channels


def check_loss(loss: Any, channels: int, kind: int) -> None:
    """Check that `loss` takes an output of so many channels and gives one value per sample, or one for all.

    `kind` is the number of its dimensions in space, 0 where it is of whole cases.

    Raises:
        ConfigError: naming the fix.
    """
    softmax = is_softmax(channels)
    if getattr(loss, "softmax" if not softmax else "sigmoid", None) is True:  # MONAI's losses say so
        activation = "a softmax over classes" if softmax else "sigmoids of regions"
        raise ConfigError(
            f"loss: the network has {channels} channels, {activation}; the loss has the other kind."
        )
    labels = torch.zeros(2, *(16,) * kind, dtype=torch.uint8)
    labels[(slice(None), *[slice(4, 8)] * min(kind, 2))] = 3
    try:
        value = loss(torch.zeros(2, channels, *labels.shape[1:]), targets(labels, channels).float())
    except Exception as error:
        raise ConfigError(f"loss: cannot be used with {channels} output channels: {error}") from error
    if tuple(value.shape) not in ((), (2,)):
        raise ConfigError(
            f"loss: gives shape {tuple(value.shape)} for 2 samples; one value each, or their mean."
        )


def check_beside(config: Config, network: nn.Module, loss: Any) -> None:
    """Check what `network` (on the meta device) gives in training beside the logits of voxels.

    A loss of voxels must not be given an output that has but one, and a term of the network's own must be one of each
    sample.

    Raises:
        ConfigError: naming the fix.
    """
    network.train()
    outputs = _outputs(network, patch_of(config))
    network.eval()
    # A function of the labels has no shape before it sees some; `deep_supervised` looks at what it gives.
    outputs = [output for output in outputs if isinstance(output, Tensor)]
    if mixed := [output for output in outputs if output.ndim < 2 and output.shape != (1,)]:
        raise ConfigError(
            f"model: in training the network adds a term of shape {tuple(mixed[0].shape)} to the loss, which mixes the "
            "samples of a batch; return one value per sample, [batch]."
        )
    if any(is_presence(output) for output in outputs) and not getattr(loss, "reads_presence", False):
        raise ConfigError(
            "loss: the network also tells in training which classes are present, which this loss does not read; set "
            "loss=dice_semantic, or model.semantic=false."
        )
    if any(is_of_nodes(output) for output in outputs) and not getattr(loss, "reads_nodes", False):
        raise ConfigError(
            "loss: the network also gives logits of supervoxels in training, which this loss does not read; set "
            "loss=cross_entropy_nodes."
        )
