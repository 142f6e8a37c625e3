"""One rule for names from outside, and nothing foreign reaches a terminal as it is."""

from __future__ import annotations

import pytest

from fedbrats.config.names import check_institutions, check_names, fault, shown
from fedbrats.config.targets import ConfigError

GOOD = [
    "TCIA01",
    "CBICA",
    "2013",
    "1",
    "NA",
    "Hospital A-b_c.d",
    "site-01",
    "Universit\u00e4tsklinikum",
    "\u75c5\u9662",
]
GOOD += ["x$_$y", "=cmd|'C calc'!A0", "[red]", "<b>", "TCGA-02-0003_1997.06.08", "a" * 100]
BAD = {
    "": "is empty",
    "  ": "is empty",
    "a ": "blank",
    "\ta": "blank",
    "a\nb": "not printed",
    "a\x1b[2Jb": "not printed",
    "a\x9b2Jb": "not printed",
    "a\u202eb": "not printed",
    "a\u2028b": "not printed",
    "a\udc80b": "not printed",
    "a\0b": "not printed",
    "a/b": "slash",
    "..": "begins with a dot",
    "../up": "slash",
    "a\\b": "slash",
    "a:b": "colon",
    ".hidden": "dot",
    "a" * 101: "longer than 100",
    "\u75c5" * 67: "200 bytes",
}


@pytest.mark.parametrize("name", GOOD)
def test_usual_names_pass_and_odd_ones_that_can_be_printed(name: str) -> None:
    assert fault(name) == ""
    check_institutions([name])


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_a_name_says_why(name: str) -> None:
    assert BAD[name] in fault(name)
    with pytest.raises(ConfigError, match=r"^institution .*; rename it in partition\.table") as raised:
        check_institutions(["A", name])
    assert str(raised.value).isprintable()
    with pytest.raises(ConfigError, match=r"^case .*; do"):
        check_names("case", [name], "do")


@pytest.mark.parametrize("name", ["pooled", "server", "all", "Pooled", "ALL"])
def test_words_of_the_results_are_no_institutions(name: str) -> None:
    assert fault(name) == ""
    with pytest.raises(ConfigError, match=r"word of the results .*partition\.table"):
        check_institutions([name])


def test_foreign_text_is_shown_without_what_a_terminal_would_obey() -> None:
    assert shown("a\x1b[31m\x07\r\x9b\u202eb\udc80") == "a\\x1b[31m\\x07\\r\\x9b\\u202eb\\udc80"
    assert shown("two\nlines\tand \u00e4 \u75c5") == "two\nlines\tand \u00e4 \u75c5"
