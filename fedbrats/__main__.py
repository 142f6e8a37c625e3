"""The command `fedbrats`: the first word chooses a command, which reads the rest of the line."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from fedbrats import __version__

# name -> module with `main(arguments) -> exit status`, what it does
COMMANDS = {
    "run": ("fedbrats.commands.run.command", "one federation with its baselines, or with -m a sweep of them"),
    "check-data": ("fedbrats.commands.check_data", "cases per institution and every problem of their files"),
    "report": ("fedbrats.commands.report", "build the report of a run again"),
    "compare": ("fedbrats.commands.compare", "one table of arms and institutions over the jobs of a sweep"),
    "cite": ("fedbrats.commands.cite", "the papers of what a run has used"),
    "models": ("fedbrats.commands.models.command", "the networks and what federating each of them means"),
    "predict": ("fedbrats.commands.predict.command", "segment cases with trained models, with uncertainty"),
    "export": ("fedbrats.commands.export.command", "a trained model as a MONAI bundle, an ONNX file or INT8"),
    "evaluate": ("fedbrats.commands.evaluate.command", "score label files, other tools' too"),
    "supervoxels": ("fedbrats.commands.supervoxels", "cut cases into supervoxels, without training"),
    "habitats": ("fedbrats.commands.habitats.command", "find sub-regions of tumours without labels for them"),
    "growth": ("fedbrats.commands.growth", "score predictions of where a tumour grows"),
    "transport": (
        "fedbrats.commands.transport.command",
        "map brains to cubes that keep their mass, and back",
    ),
    "federation": (
        "fedbrats.commands.federation.command",
        "authority, certificates and keys of a federation",
    ),
    "audit": ("fedbrats.commands.audit", "try to break the privacy of a run"),
    "server": ("fedbrats.commands.server", "run the server of a federation across hospitals"),
    "site": ("fedbrats.commands.site.command", "one hospital's side of a federation"),
    "study": ("fedbrats.commands.study.command", "a study across hospitals, at the server"),
    "bench": ("fedbrats.bench.command", "measure the federation against plain PyTorch"),
}


def main() -> int:
    """Run the command that the command line names and return its exit status, 2 where it names none."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"fedbrats {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"fedbrats: no command {name!r}; choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    sys.argv = [f"fedbrats {name}", *arguments]  # as the command says its own name, and as a run records it
    try:
        return int(import_module(COMMANDS[name][0]).main(arguments))
    except KeyboardInterrupt:
        print(f"fedbrats {name}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT


def overview() -> str:
    """What `fedbrats --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fedbrats COMMAND ...",
            "",
            "Federated brain-tumour segmentation across the real BraTS institutions.",
            "",
            *lines,
            "",
            "`fedbrats COMMAND --help` says what a command takes; `fedbrats run experiment=demo` is a first run.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
