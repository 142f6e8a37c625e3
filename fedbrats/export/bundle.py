"""A MONAI bundle: a folder that MONAI, torch, nibabel and scipy run, without fedbrats."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES, Case
from fedbrats.data.nifti import read_volume
from fedbrats.data.regions import to_canonical
from fedbrats.export.configuration import GRAPH, Model, inference_config, metadata
from fedbrats.export.graph import graph_of, quiet, write_graph
from fedbrats.export.proof import Found
from fedbrats.export.transforms import tracking
from fedbrats.files import write_json
from fedbrats.inference.members import Member
from fedbrats.models.build import window_of

INFERENCE = "configs/inference.json"


def write_bundle(
    model: Model, member: Member, root: Path, references: Sequence[str], said: Mapping[str, Any]
) -> None:
    """Write graph and configurations of a bundle below `root`; `exported.write_model` adds the weights.

    Raises:
        ConfigError: the network cannot be exported.
    """
    write_graph(graph_of(member.network, window_of(model.config)), root / GRAPH)
    write_json(root / INFERENCE, inference_config(model))
    write_json(root / "configs" / "metadata.json", metadata(model, "brats_federated", references, said))


def by_bundle(root: Path, model: Model) -> Callable[[Case], Found]:
    """What the bundle in `root` says of a case, by MONAI from the files on, as `run` of its configuration does it."""
    parser = ConfigParser()
    parser.read_config(str(root / INFERENCE))
    folder = tempfile.TemporaryDirectory()  # gone with the function that holds it
    parser["bundle_root"], parser["output_dir"] = str(root), folder.name
    parser["device"] = "$torch.device('cpu')"

    @tracking()
    def found(case: Case, folder: Any = folder) -> Found:
        if any(file.channel is not None for file in case.images.values()):
            raise ConfigError(
                f"{case.name}: a bundle reads one 3D file per sequence, this case is one 4D file; name other cases "
                "in data."
            )
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = {name: str(case.images[name].path) for name in MODALITIES}
            predicted = parser.get_parsed_content("predict")(
                parser.get_parsed_content("preprocessing")(files)
            )
            activate = parser.get_parsed_content("postprocessing").transforms[0]
            probabilities = np.asarray(activate({"pred": predicted["pred"]})["pred"])
            parser.get_parsed_content("save")(parser.get_parsed_content("postprocessing")(predicted))
        (written,) = Path(folder.name).iterdir()
        labels = to_canonical(read_volume(written)[0], model.numbers)
        written.unlink()
        return Found(probabilities, labels)

    return found
