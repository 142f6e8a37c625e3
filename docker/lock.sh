#!/bin/sh
# Write docker/requirements.txt and docker/tools.txt anew: what the image installs, each wheel by its hashes.
# From the root of the checkout, with uv (pip install uv). Versions are those of constraints.txt; torch is left out,
# because its wheel depends on the machine: it comes from the build argument TORCH_INDEX.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lock() {
    uv pip compile "$1" --generate-hashes --universal --python-version 3.11 --no-annotate --no-header --quiet \
        --default-index https://pypi.org/simple ${2:+--constraint "$2"} ${3:+--override "$3"}
}
python3 - > "$work/image.in" <<'PYTHON'
import tomllib

wanted = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
print(*(line for line in wanted if not line.startswith("torch")), sep="\n")
# what torch itself needs, so that its own index is asked for nothing else
print("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions", sep="\n")
PYTHON
echo "torch ; sys_platform == 'never'" > "$work/override.txt"
grep -v "^torch==" constraints.txt > "$work/constraints.txt"
printf '%s\n' cyclonedx-bom hatchling pip setuptools wheel > "$work/tools.in"
head="# Written by docker/lock.sh."
{ echo "$head"; lock "$work/image.in" "$work/constraints.txt" "$work/override.txt" \
    | awk '/^[a-zA-Z]/ { keep = !/== .(win32|never)/ } keep'; } > docker/requirements.txt
{ echo "$head"; lock "$work/tools.in" \
    | awk '/^[a-zA-Z]/ { keep = !/== .win32/ } keep'; } > docker/tools.txt
