"""The typed configuration of a run: one dataclass per Hydra group, every value checked before any work starts.

Groups whose content names a class (`model`, `loss`, `strategy`, `privacy`, `personalization`, `train.optimizer`) carry
a Hydra `_target_` and are checked against that class's own signature; all other groups are the dataclasses below, so
that Hydra itself refuses an unknown key by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from fedbrats.config.critic import CriticConfig
from fedbrats.config.interpolations import check_settled
from fedbrats.config.objective import ObjectiveConfig
from fedbrats.config.phantom import PhantomConfig
from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.secure import without_unused
from fedbrats.config.survey import SurveyConfig
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import TaskConfig
from fedbrats.config.vat import VatConfig
from fedbrats.files import read_yaml, write_text

FEDERATED, POOLED, LOCAL = "federated", "pooled", "local"
POOLED_ROW = "pooled_in_a_row"  # beside POOLED with train.pooled_steps=both
FLOOR = "floor"  # rows of results that nothing was trained for (report.floor)
ARMS = (FEDERATED, POOLED, LOCAL)
SCHEMA = "schema"  # its name in Hydra's store and at the top of `conf/config.yaml`


@dataclass
class DataConfig:
    """Where the cases are and how they are read."""

    source: str = "folder"  # "folder" (any BraTS layout under root) or "phantom" (generated into root)
    root: str | None = None
    cache: str = "outputs/cache"  # preprocessed volumes, shared by all runs
    on_bad_case: str = "fail"  # "fail" or "skip"
    max_voxels: int = 134_217_728  # of one file (512 x 512 x 512), the channels of a 4D file together
    links: str = "inside"  # "inside": links that leave root are errors; "follow": they are followed
    labels: Any = "auto"  # of label numbers: auto, a family, or {ncr: 1, ed: 2, et: 4}; see data/README.md
    phantom: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass
class PartitionConfig:
    """Which site holds which case, and which cases each site trains, validates and tests on."""

    method: str = "institution"  # institution | fets | own | iid | dirichlet | quantity
    table: str | None = None  # CSV that maps cases to institutions
    case_column: str | None = None  # header of the case column; None recognises the usual ones
    site_column: str | None = None  # header of the institution column; None recognises the usual ones
    unknown: str | None = None  # institution that takes cases without one; None refuses them
    patient_column: str | None = None  # header of a column of `table` that names the patient of each case
    patient_pattern: str | None = (
        None  # regular expression of a whole case name; its one group is the patient
    )
    # Names whose patient nothing tells: "scan" takes each as a patient of its own, "refuse" ends the run; None takes
    # them, too, but refuses them with patient-level privacy.
    unknown_patients: str | None = None
    holdout: list[str] = field(default_factory=list)  # institutions that are evaluated but never train
    least: int = 1  # patients of an institution; one with fewer has no part in the run
    test_by: str = "site"  # "institution": control partitions test the patients that `institution` would
    test_table: str | None = None  # CSV of the cases that test, one file a fold; None draws `test` of them
    sites: int = 5  # number of sites of the control partitions
    alpha: float = 0.5  # concentration of `dirichlet` and skew of `quantity`; small = unequal
    val: float = 0.15  # share of each site's patients
    test: float = 0.25  # share of each site's patients
    seed: int = 0  # of the control partitions and the split; kept apart from the training seed
    fold: int | None = None  # fold of each site that validates in place of `val`, 0 to folds - 1
    folds: int = 5  # of a cross-validation


@dataclass
class InputConfig:
    """What a network takes; the node `input` of a file of conf/model."""

    patch: list[int] = field(
        default_factory=lambda: [96, 96, 96]
    )  # voxels; two sides = slices of a 2D network
    multiple: int = 1  # sides of patch and window are multiples of this
    planes: list[str] = field(default_factory=lambda: ["axial"])  # 2D: axial | coronal | sagittal
    resize: list[int] | None = None  # 2D: slices are resized to this before the network, its output back
    modalities: list[str] | None = None  # of t1, t1ce, t2, flair, those that the network sees; None: all
    normalise: str = "zscore"  # a kind of data/intensity.py
    crop: str = (
        "brain"  # of whole cases, what is resized to the patch: brain | tumour, as its label file has it
    )


@dataclass
class TrainConfig:
    """What one site does in one round."""

    optimizer: dict[str, Any] = field(default_factory=dict)  # Hydra partial, called with the parameters
    patch: list[int] | None = None  # voxels; None takes the model's own (model.input.patch)
    batch: int = 2
    local_steps: int | None = None  # optimiser steps per round; excludes local_epochs
    local_epochs: float | None = None  # passes over a site's training cases per round
    site_steps: dict[Any, int] = field(default_factory=dict)  # partial work: steps per round of named sites
    site_epochs: dict[Any, float] = field(
        default_factory=dict
    )  # partial work: epochs per round of named sites
    pooled_steps: str = (
        "together"  # of the pooled arm: as many as all sites take together, or "in_a_row" as one site
    )
    patches_per_case: int = 1  # patches drawn from a case in one epoch
    tumour_share: float = 0.5  # share of patches centred on tumour: 0 (all anywhere), or at least 1/3
    tumour_centre: str = "any"  # their centre: any tumour voxel | class | box, see data/patches.py
    augment: str = "light"  # a recipe of data/augment.py
    schedule: str = "constant"  # over the global rounds, one of training/schedule.py
    milestones: dict[Any, float] = field(default_factory=dict)  # schedule=steps: share of the run to factor
    warmup: int = 0  # rounds of linear warm-up
    plateau_factor: float = 0.5  # schedule=plateau: the rate is multiplied by this,
    plateau_patience: int = 2  # when the validation loss has not fallen for more than so many validations,
    plateau_cooldown: int = 0  # and then not again for so many
    stop_patience: int | None = None  # an arm stops once so many validations gave no lower loss; None never
    deep_supervision: list[float] | None = None  # weight per output, full size first; None halves them
    clip_norm: float | None = None  # of the gradient, per step
    vat: VatConfig = field(default_factory=VatConfig)  # virtual adversarial training, off
    critic: CriticConfig = field(default_factory=CriticConfig)  # beside the network, at the site; off
    keep_optimizer: bool = False  # federated sites keep their optimiser state between rounds
    init: str | None = None  # run whose model is the start, RUN[@ARM[@WHICH]]; None draws it from the seed


@dataclass
class InferenceConfig:
    """From a case to probabilities: sliding windows (MONAI, Gaussian weights) and what is averaged over them."""

    window: list[int] | None = None  # voxels; None takes the training patch
    overlap: float = 0.5
    batch: int = 2
    flips: bool = False  # mean over all mirrorings: 8 in 3D, 4 in 2D
    mc_passes: int = 0  # Monte Carlo dropout: passes with dropout on; 0 leaves it off
    combine: str = "average"  # average | vote | staple, of planes and ensemble members (staple: members)
    locate: str | None = (
        None  # run whose model finds the tumour first; the network then sees a crop around it
    )
    locate_crop: list[int] = field(default_factory=lambda: [128, 128, 128])  # voxels


@dataclass
class PostprocessConfig:
    """Steps that change the predicted labels, in order; each is measured on its own."""

    steps: list[Any] = field(default_factory=list)  # nodes with a _target_ of fedbrats.postprocess


@dataclass
class MetricsConfig:
    """How predictions are scored."""

    convention: str = "brats2023"  # brats2023 | captk | monai
    more: list[Any] = field(default_factory=list)  # metrics of your own: a _target_ each that gives a Metric


@dataclass
class RuntimeConfig:
    """Where the work is done."""

    engine: str = "local"  # local | ray | superlink
    address: str | None = None  # of a Ray cluster, "auto" or host:port; None starts Ray on this machine
    workers: int | None = None  # processes; 0 = this process, None = one per core (CPU) or one per GPU
    threads: int = 1  # torch threads of a worker
    device: str = "auto"  # auto | cpu | cuda
    amp: bool = True  # bf16 autocast on a GPU; no effect on a CPU
    memory_fraction: float | None = None  # of the GPU for each worker; None shares it equally
    evaluate_every: int = 1  # rounds between validations
    # Validation of a round travels with the training of the next; None: in a deployment, where nothing needs it before.
    one_exchange: bool | None = None
    checkpoint_every: int = 1  # rounds between checkpoints
    keep_checkpoints: int = 1  # newest checkpoints that stay, to average over rounds


@dataclass
class ReportConfig:
    """What is left besides the tables."""

    select: str = "best"  # model that is tested: "best" on validation or "last"
    predictions: bool = False  # write the test predictions as NIfTI
    # The whole tumour by a threshold on FLAIR beside every arm: share of the brain that is darker; null leaves it out.
    floor: float | None = 0.94
    html: bool = True
    # Of others, to be set beside ours: what, source, a score by region or their mean, note.
    published: list[dict[str, Any]] = field(default_factory=list)
    track: list[str] = field(default_factory=list)  # tensorboard | mlflow, which are extras


@dataclass
class RunConfig:
    """Housekeeping of one run."""

    resume: str | None = None  # run folder to continue
    trust: list[str] = field(default_factory=list)  # own packages that run folders named here may name
    versions: str = "same"  # of fedbrats, flwr and torch at the sites: as the server's, or "any"
    baselines: str | None = None  # run whose pooled and local arms are taken over instead of trained anew
    jobs_per_gpu: int = 1  # of a sweep whose launcher runs several at once in processes of this machine
    code: str = "same"  # that made the jobs which a sweep finds in its folder: as that of now, or "any"


@dataclass
class Config:
    """One run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    model: dict[str, Any] = field(default_factory=lambda: {"size": "full"})  # see models/node.py
    loss: dict[str, Any] = MISSING
    strategy: dict[str, Any] = MISSING
    privacy: dict[str, Any] = field(default_factory=dict)  # {} = none; see config/secure.py
    personalization: dict[str, Any] = field(default_factory=dict)  # {} = none
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    scenario: ScenarioConfig = field(default_factory=ScenarioConfig)
    survey: SurveyConfig = field(default_factory=SurveyConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    run: RunConfig = field(default_factory=RunConfig)
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    rounds: int = 10
    seed: int = 0


def register() -> None:
    """Make the schema known to Hydra; `conf/config.yaml` names it first in its defaults."""
    store = ConfigStore.instance()
    if f"{SCHEMA}.yaml" not in store.repo:
        store.store(name=SCHEMA, node=Config)


@cache
def _schema() -> DictConfig:
    """What configurations are merged with, which copies it; to make it takes an eighth of the time of composing."""
    return OmegaConf.structured(Config)


def load_config(file: Path) -> Config:
    """The resolved configuration of a run, as `save_config` wrote it; whoever builds it asks `foreign` first.

    Raises:
        ConfigError: the file is not a configuration of this version, or holds an interpolation.
    """
    try:
        stored = read_yaml(file)
        # Of earlier versions: the number of enhancing tumour, and how often intervals resampled.
        if OmegaConf.select(stored, "data.et_label", default=0) != 0:
            stored.data.labels = {3: "gli2023", 4: "brats2021"}.get(stored.data.pop("et_label"), "auto")
        if OmegaConf.select(stored, "metrics.bootstrap"):
            stored.metrics.pop("bootstrap")
        merged = OmegaConf.merge(_schema(), stored)
    except Exception as error:
        raise ConfigError(f"{file}: not a configuration of this version of fedbrats ({error})") from error
    check_settled(OmegaConf.to_container(merged, resolve=False), str(file))
    return cast(Config, OmegaConf.to_object(merged))


def save_config(config: Config, file: Path) -> None:
    """Write the complete configuration as YAML."""
    write_text(file, OmegaConf.to_yaml(OmegaConf.structured(config)))


def typed(config: DictConfig | Config) -> Config:
    """The configuration as dataclasses; `checks.config.checked` looks at its values.

    Raises:
        ConfigError: a value is missing or of another type, or an option is unknown; the message names the key.
    """
    if not isinstance(config, DictConfig):
        return config
    try:
        # Merged anew, because a key added with "+" has passed by the schema.
        merged = OmegaConf.merge(_schema(), _named(OmegaConf.to_container(config, resolve=True)))
        found = cast(Config, OmegaConf.to_object(merged))
    except Exception as error:
        raise ConfigError(str(error)) from error
    found.privacy = without_unused(found.privacy)
    return found


def _named(content: Any) -> Any:
    """`content` with every key as text: an institution called 2013 is read as a number by YAML and by Hydra."""
    if isinstance(content, dict):
        return {str(key): _named(value) for key, value in content.items()}
    return [_named(value) for value in content] if isinstance(content, list) else content
