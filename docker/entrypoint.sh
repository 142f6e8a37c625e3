#!/bin/sh
# `check-data data.root=/data` is `fedbrats check-data data.root=/data`; options and overrides alone are for `fedbrats run`.
# Without arguments they are taken from FEDBRATS_OVERRIDES, split at spaces.
# One of the words proxy, superlink, server, supernode and site, alone, is a role of a deployment.
set -euf
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2086 # the split is wanted; -f keeps brackets as they are
    set -- ${FEDBRATS_OVERRIDES:---help}
fi
case "$1" in
    -h | --help | --version) ;;
    -* | +* | \~* | *=*) set -- run "$@" ;;
esac
if [ $# -eq 1 ]; then
    case "$1" in
        proxy)
            name_server=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2; exit }' /etc/resolv.conf)
            sed "s/NAME_SERVER/$name_server/" /app/nginx.conf > /tmp/nginx.conf
            exec nginx -e stderr -c /tmp/nginx.conf
            ;;
        superlink) set -- server start --only superlink ;;
        server) set -- server start --only superexec ;;
        supernode) set -- site start /site/site.yaml --only supernode --host 0.0.0.0 --secret /link/superexec.secret ;;
        site) set -- site start /site/site.yaml --only superexec --host supernode --secret /link/superexec.secret ;;
    esac
fi
exec fedbrats "$@"
