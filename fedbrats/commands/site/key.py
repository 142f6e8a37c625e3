"""`site key`: make the key by which the server will know this site; its private half never leaves the machine."""

from __future__ import annotations

import argparse

from fedbrats.commands.site.words import failed
from fedbrats.commands.words import path
from fedbrats.config.targets import ConfigError


def main(arguments: list[str]) -> int:
    """Write the private key and FILE.pub, and print what to do with them; 2 where one of them is there already."""
    parser = argparse.ArgumentParser(description="Make the site's key, before the site is enrolled.")
    parser.add_argument("file", type=path, nargs="?", default=path("site.key"), help="to be (site.key)")
    file = parser.parse_args(arguments).file
    from fedbrats.credentials.keys import fingerprint, make_site_key

    try:
        public = make_site_key(file)
    except (ConfigError, OSError) as error:
        return failed(error)
    print(f"{file}: stays on this machine, readable by you only; a copy belongs in a safe")
    print(f"{file}.pub: goes to the operator of the server, who compares by telephone: {fingerprint(public)}")
    return 0
