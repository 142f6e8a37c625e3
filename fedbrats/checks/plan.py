"""What the names of cases, sites and patients tell before any volume is read, by `run` and by `check_data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fedbrats.checks.privacy import planned_validations
from fedbrats.checks.secure import check_secure_sites
from fedbrats.checks.settings import check_private_sites, check_unseen_by_localiser
from fedbrats.checks.site_count import check_count
from fedbrats.config.names import check_institutions, check_names
from fedbrats.config.schema import FEDERATED, Config
from fedbrats.config.secure import mechanism
from fedbrats.config.targets import ConfigError
from fedbrats.data.case_labels import OF_RUN, Keys, check_classes
from fedbrats.data.cases import Case
from fedbrats.data.institutions import OWN, patients_of, table_notes
from fedbrats.data.partition import Site, make_partition
from fedbrats.data.patients import COLUMN, check_known
from fedbrats.data.sentences import plural
from fedbrats.data.whole import TUMOUR
from fedbrats.federation.initial import check_init_patients, initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.scenario.participation import check_sites, number_drawn
from fedbrats.training.amount import check_site_names


def check_plan(
    config: Config,
    say: Callable[[str], None],
    cases: Sequence[Case],
    labels: Mapping[str, int] | None = None,
    keys: Keys = OF_RUN,
) -> None:
    """Check everything that the names of the cases settle, and say what was understood.

    Args:
        config: checked by itself.
        say: told whose scans the cases are, rule by rule, and which sites are too small for a test.
        cases: as `find_cases` returns them; some may yet turn out to be unusable.
        labels: of whole cases, for a classification.
        keys: that messages about them name.

    Raises:
        ConfigError: a patient whom nothing tells, where that is refused; cases without institution, a name that cannot
            be one, a stranger in `partition.holdout`, `train.site_steps`, `train.site_epochs` or `privacy.sites`; no
            site left to train, none with patients enough for a test or for what needs a validation; a start of
            another network; and all that `check_dealt` refuses.
    """
    cfg = config.partition
    patients = patients_of(cases, cfg)
    check_known(patients, cfg, private=isinstance(parts_of(config).privacy, DpSgd))
    listed = sorted(told.patient for told in patients.told.values() if told.rule == COLUMN)
    check_names("patient", listed, "rename it in partition.table")
    for note in table_notes(cfg):
        say(note)
    for understood in patients.counts():
        say(str(understood))
    known = cfg.method != "dirichlet"  # there the sizes, not the names, depend on tumour volumes
    sites = make_partition(cases, cfg if known else replace(cfg, method="iid"), labels=labels)
    check_classes(config.task, sites if known else (), labels or {}, keys)
    if parts_of(config).rules.crop == TUMOUR:
        say(
            "model.input.crop=tumour: images are cut to the tumour as its label file has it, those of test cases too"
        )
    check_institutions(site.name for site in sites)
    check_site_names(config.train, [site.name for site in sites if not site.holdout])
    check_sites(config.scenario, [site.name for site in sites if not site.holdout])
    if config.train.init is not None:
        initial_arrays(parts_of(config), config.train.init)  # whether they fit this network
    _say_validation(config, say)
    if known:
        check_dealt(config, sites, patients.of)
        _check_sizes(config, say, sites, patients.of)


def _say_validation(config: Config, say: Callable[[str], None]) -> None:
    """Say what noisy validation will spend, as a ledger that outlives the run may hold more already."""
    settings = parts_of(config).privacy
    if not isinstance(settings, DpSgd) or settings.validation != "noisy":
        return
    releases, epsilon = planned_validations(config, settings)
    say(
        f"noisy validation: {plural(releases, 'release')} of each site will spend epsilon {epsilon:.3g} of "
        f"{settings.validation_budget:g} for its validation patients; a site whose ledger has spent more before stops "
        "there, and trains on"
    )


def check_dealt(config: Config, sites: Sequence[Site], of: Mapping[str, str]) -> None:
    """Check what depends on which site has which case; once more when it is known which cases can be used.

    Raises:
        ConfigError: a delta that is not below 1/N, a stranger in `privacy.sites`, too few sites, or a patient who is
            tested here and whom the run of `inference.locate` or `train.init` has trained on.
    """
    check_private_sites(config, sites, of)
    if config.partition.method != OWN:  # else these are one site's, which does not see the others
        parts, training = parts_of(config), [site for site in sites if not site.holdout and site.train]
        if FEDERATED in config.arms:
            check_count(parts, number_drawn(config.scenario, len(training)))
            if reason := parts.algorithm.refuses_sites([site.name for site in training]):
                raise ConfigError(f"strategy ({type(parts.algorithm).__name__}) {reason}.")
        check_secure_sites(parts, training)
    check_unseen_by_localiser(config, sites)
    check_init_patients(config, sites, of, private=bool(mechanism(config.privacy)))


def _check_sizes(
    config: Config, say: Callable[[str], None], sites: Sequence[Site], of: Mapping[str, str]
) -> None:
    """Say which sites are too small to be tested or to validate, and refuse a test of nobody."""
    cfg = config.partition
    if cfg.test > 0 and not any(site.test for site in sites):
        raise ConfigError(
            f"partition.test={cfg.test:g}: no institution has a second patient, so nothing could be tested; set "
            "partition.test=0 to train without a test, or partition.sites or partition.table for fewer institutions"
        )
    for site in sites:
        n = plural(len({of[case] for case in site.cases}), "patient")
        lacks = [
            what
            for what, asked, found in (
                ("tested", cfg.test > 0, site.test),
                ("validated", cfg.val > 0 or cfg.fold is not None, site.val),
            )
            if asked and not found and not site.holdout
        ]
        if lacks:
            say(f"{site.name} has {n}: nobody there is {' or '.join(lacks)}")
    if not any(site.val for site in sites):
        _check_without_validation(config, say)


def _check_without_validation(config: Config, say: Callable[[str], None]) -> None:
    """Refuse what would silently come to nothing where no site has a patient to validate."""
    needs = {
        "train.schedule=plateau would never lower the rate": config.train.schedule == "plateau",
        "a step of postprocess that is fitted would do nothing": any(
            not step.fitted for step in parts_of(config).steps
        ),
    }
    if found := [what for what, needed in needs.items() if needed]:
        raise ConfigError(
            f"no institution has a patient to validate, so {' and '.join(found)}; choose another, or a larger "
            f"partition.val than {config.partition.val:g}"
        )
    if config.report.select == "best":
        say(
            "no institution has a patient to validate, so the model of the last round is tested, not the best"
        )
