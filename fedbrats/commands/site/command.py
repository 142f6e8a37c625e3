"""`fedbrats site WORD ...`: one hospital's side of a federation; each word is a file of this folder."""

from __future__ import annotations

import sys
from importlib import import_module

# word -> module with `main(arguments) -> exit status`, what it does
WORDS = {
    "key": ("fedbrats.commands.site.key", "make the key by which the server will know this site"),
    "log": (
        "fedbrats.commands.site.log",
        "what left this site; the page of its data officer, and whether it is whole",
    ),
    "preflight": ("fedbrats.commands.site.preflight", "what to put right before this site can take part"),
    "approve": ("fedbrats.commands.site.approve", "show the plan of a study and approve it"),
    "start": ("fedbrats.commands.site.start", "connect to the server and take part in its studies"),
    "status": ("fedbrats.commands.site.status", "whether it runs, what it needs, how far each study is"),
    "stop": ("fedbrats.commands.site.stop", "end what `start` runs"),
}


def main(arguments: list[str]) -> int:
    """Run the word that the first argument names; 2 where it names none."""
    word, *rest = arguments or [""]
    if word in WORDS:
        sys.argv = [f"fedbrats site {word}", *rest]
        return int(import_module(WORDS[word][0]).main(rest))
    lines = "\n".join(f"  {name:<{max(map(len, WORDS))}}  {what}" for name, (_, what) in WORDS.items())
    usage = f"usage: fedbrats site WORD ...\n\n{lines}\n\n`fedbrats site WORD --help` says what a word takes."
    helps = word in ("-h", "--help")
    print(usage, file=sys.stdout if helps else sys.stderr)
    return 0 if helps else 2
