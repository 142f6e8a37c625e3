"""What the README files say: every command in them parses, every link and every file they name is there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from itertools import pairwise, product
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fedbrats.__main__ import COMMANDS
from fedbrats.bench.parts import PARTS
from fedbrats.checks.config import checked
from fedbrats.commands import audit, cite, compare, growth, report, server, supervoxels
from fedbrats.commands.compose import composed, own_folder
from fedbrats.commands.evaluate import arguments as evaluate_arguments
from fedbrats.commands.export import arguments as export
from fedbrats.commands.federation import command as federation
from fedbrats.commands.habitats import arguments as habitats
from fedbrats.commands.models import command as models
from fedbrats.commands.predict import arguments as predict
from fedbrats.commands.site import command as site
from fedbrats.commands.study import command as study
from fedbrats.commands.transport import arguments as transport

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted(ROOT.glob("fedbrats/**/README.md")), ROOT / "docker" / "README.md"]
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
OUTSIDE = ROOT / "tests" / "outside"  # brain_parts, and as conf/ what README.md calls my_conf
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
STARTS = ("fedbrats ", "make ", "docker ", "pip ", "python ", "source ")


def plain(text: str) -> str:
    return FENCED.sub("", text)


def commands(text: str) -> list[str]:
    """Of the blocks without a language, and those in a line of text; `...` and <what you put in> taken care of."""
    blocks = [body for language, body in FENCED.findall(text) if not language]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines() if line.strip()]
    inline = [code for code in INLINE.findall(plain(text)) if code.startswith(STARTS)]
    found = [re.sub(r"\s#.*", "", line) for line in [*lines, *inline]]
    return [re.sub(r"<[^>]*>", "some", line.replace("=...", "=some").replace(" ...", "")) for line in found]


def jobs(overrides: list[str]) -> list[list[str]]:
    """What a sweep makes of its overrides."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    each = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line]
        for one in parsed
    ]
    return [list(job) for job in product(*each)]


class Parsed(Exception):
    """The arguments were understood."""


def parse_run(words: list[str]) -> None:
    own, words = own_folder([str(OUTSIDE / "conf") if word == "my_conf" else word for word in words])
    sweep = "-m" in words
    overrides = [word for word in words if word != "-m"]
    for job in jobs(overrides) if sweep else [overrides]:
        checked(composed(job, own))


def parse_with(main, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By its argparse parser."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, arguments):
        parse(self, arguments)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        with pytest.raises(Parsed):
            main(words)


def parse_bench(words: list[str]) -> None:
    assert set(words) <= PARTS.keys()


def site_main(name: str):
    return importlib.import_module(site.WORDS[name][0]).main


def parse_fedbrats(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = words
    assert name in COMMANDS
    by_argparse = {
        "report": report.main,
        "compare": compare.main,
        "cite": cite.main,
        "audit": audit.main,
        "federation": federation.main,
        "server": server.main,
        "site": site.main,
        "study": study.main,
    }
    by_hand = {
        "run": parse_run,
        "check-data": lambda words: composed(words),
        "models": models.read_arguments,
        "predict": predict.read_arguments,
        "export": export.read_arguments,
        "evaluate": evaluate_arguments.read_arguments,
        "supervoxels": supervoxels.read_arguments,
        "transport": transport.read_arguments,
        "growth": growth.read_arguments,
        "habitats": habitats.read_arguments,
        "bench": parse_bench,
        "site": lambda words: parse_with(site_main(words[0]), words[1:], monkeypatch),
    }
    if set(rest) & {"--help"}:
        return
    if name in by_argparse:
        parse_with(by_argparse[name], rest, monkeypatch)
    else:
        by_hand[name](rest)


def parse_docker(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for flag, value in pairwise(words):
        if flag == "-f":
            assert (ROOT / value).is_file(), value
    if words[0] == "run" and "--entrypoint" not in words:  # another program of the image
        image = words.index("fedbrats")
        rest = words[image + 1 :]
        parse_fedbrats(rest if rest[0] in COMMANDS else ["run", *rest], monkeypatch)
    for before in (
        "operator",
        "fedbrats",
    ):  # docker compose run operator ..., docker compose exec site fedbrats ...
        if words[0] == "compose" and before in words:
            parse_fedbrats(words[words.index(before) + 1 :], monkeypatch)


def parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(command)
    if program == "fedbrats":
        parse_fedbrats(words, monkeypatch)
    elif program == "docker":
        parse_docker(words, monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in targets, command
    elif program == "pip":
        text = (ROOT / "pyproject.toml").read_text()
        assert all(f"\n{extra} = [" in text for extra in re.findall(r"\.\[(\w+)\]", command)), command
    elif words[:1] == ["-m"]:
        assert callable(importlib.import_module(words[1]).main), command
    else:
        assert command == "source .venv/bin/activate", f"{command}: no such program here"


def test_all_readme_files_are_read() -> None:
    assert {"README.md", "docker/README.md", "fedbrats/privacy/README.md"} < set(NAMES)
    assert sum(len(commands(file.read_text())) for file in FILES) > 30


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (name, command)
        for name, file in zip(NAMES, FILES, strict=True)
        for command in commands(file.read_text())
    ],
)
def test_every_command_parses(name: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(OUTSIDE / "brain_parts"))
    parse(command, monkeypatch)


@pytest.mark.parametrize(
    "wrong",
    [
        "fedbrats run strategy=fedmax",
        "fedbrats run -m strategy=fedavg,fedprox seed=1,two",
        "fedbrats audit some --no-pictures",
        "fedbrats federation init --name 10.0.0.1",
        "fedbrats site preflight",
        "fedbrats predict checkpoint=some folder=some",
        "fedbrats bench z",
        "fedbrats models all=true",
        "docker run --rm fedbrats check-data root=some",
        "docker compose -f docker/compose.server.yaml run --rm operator federation enrol",
        "docker compose -f docker/compose.site.yaml exec site fedbrats site approve /site/site.yaml",
        "docker compose -f docker/compose.yaml up -d",
        "fedbrats server begin",
        "fedbrats study start",
        "make all",
        "pip install -e '.[gpu]'",
        "python run.py",
    ],
)
def test_a_wrong_command_is_found(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((Exception, SystemExit)):
        parse(wrong, monkeypatch)


def anchors(file: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", plain(file.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", plain((ROOT / name).read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(file), f"{name}: {target}, there are {sorted(anchors(file))}"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_project_that_is_named_exists(name: str) -> None:
    for code in INLINE.findall(plain((ROOT / name).read_text())):
        if re.fullmatch(r"(fedbrats|conf|sims|tests|docker)/[\w./]*", code):
            assert (ROOT / code).exists(), f"{name}: {code}"


def test_every_long_readme_is_reached_from_the_front_page() -> None:
    front = (ROOT / "README.md").read_text()
    assert [name for name in NAMES[1:] if f"]({name}" not in front] == []
