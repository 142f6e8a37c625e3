#!/bin/sh
# `check_data data.root=/data` runs sims/check_data.py with the rest; without the name of a script it is sims/run.py.
# Without arguments they are taken from FEDBRATS_OVERRIDES, split at spaces.
set -euf
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2086 # the split is wanted; -f keeps brackets as they are
    set -- ${FEDBRATS_OVERRIDES:---help}
fi
script=run
case "$1" in
    */*) ;;
    *)
        if [ -f "/app/sims/$1.py" ]; then
            script=$1
            shift
        fi
        ;;
esac
exec python "/app/sims/$script.py" "$@"
