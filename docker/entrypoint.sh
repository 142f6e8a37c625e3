#!/bin/sh
# `check-data data.root=/data` is `fedbrats check-data data.root=/data`; options and overrides alone are for `fedbrats run`.
# Without arguments they are taken from FEDBRATS_OVERRIDES, split at spaces.
set -euf
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2086 # the split is wanted; -f keeps brackets as they are
    set -- ${FEDBRATS_OVERRIDES:---help}
fi
case "$1" in
    -h | --help | --version) ;;
    -* | +* | \~* | *=*) set -- run "$@" ;;
esac
exec fedbrats "$@"
