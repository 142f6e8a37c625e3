"""Unit, adjacency, coverage and gaps: the same words wherever they are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.federation.server.spending import write_spent
from fedbrats.privacy import accounting
from fedbrats.privacy.dp_sgd import NOT_COVERED, DpSgd
from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from fedbrats.report.sections.privacy_tables import privacy_sentences, site_rows
from fedbrats.runs.privacy_files import read_privacy, read_rounds
from tests.federation.toy_private import budget, runtime

ROOT = Path(__file__).parents[2]


def said(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("file", ["README.md", "fedbrats/privacy/README.md"])
def test_the_readmes_say_it_word_for_word(file: str) -> None:
    text = said((ROOT / file).read_text())
    for words in (PATIENT_ADJACENCY, *NOT_COVERED):
        assert words in text


def test_the_accounting_is_of_these_neighbours() -> None:
    assert PATIENT_ADJACENCY in said(accounting.__doc__ or "")


def test_ledger_privacy_json_and_report_say_it_word_for_word(tmp_path: Path) -> None:
    site = budget(runtime(tmp_path / "site"))
    site.reserve(1)
    assert f'"{PATIENT_ADJACENCY}"' in site.ledger().file.read_text()
    write_spent(tmp_path, DpSgd(sigma=1.0), {"A": site.summary()}, {}, {})
    privacy = read_privacy(tmp_path)
    assert privacy is not None
    assert (privacy.adjacency, privacy.not_covered[: len(NOT_COVERED)]) == (PATIENT_ADJACENCY, NOT_COVERED)
    assert f"Unit: one patient. Neighbouring data: {PATIENT_ADJACENCY}." in privacy_sentences(privacy, [])
    assert site_rows(privacy, read_rounds(tmp_path))[0]["patients"].startswith("N = ")


def test_nobody_says_another_adjacency() -> None:
    """What contradicts it: cases that would be public, patients that would come and go with N."""
    texts = [*ROOT.glob("fedbrats/**/*.py"), *ROOT.glob("fedbrats/**/*.j2"), *ROOT.glob("conf/**/*.yaml")]
    for file in texts:
        text = said(file.read_text()).lower()
        assert "which cases it trains on" not in text, file
        if file.name != "ledger.py":  # it reads on what earlier versions wrote
            assert "add or remove one" not in text, file
