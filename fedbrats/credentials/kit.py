"""What a site gets when it is enrolled: a folder with all that `fedbrats site` needs, to fill in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.config.versions import own_versions
from fedbrats.credentials.certificates import fingerprint as certificate_fingerprint
from fedbrats.credentials.certificates import read_certificates
from fedbrats.credentials.folder import Folder
from fedbrats.credentials.keys import fingerprint, make_site_key
from fedbrats.credentials.record import Federation
from fedbrats.files import private_folder, replace_folder, write_text

KEY_FILE = "site.key"

_SITE = """\
# The configuration of this site. What is said here is decided here; no study can change it.
name: {name}  # of the institution
storage: storage  # folder of the site's own: studies, cache, ledgers, logs
key: {key}  # private; never leaves this machine
server:
  address: {address}
  ca: ca.crt
  versions: {versions}  # of the server, to compare with
data:
  root: ""  # fill in: the folder of your cases, which is only read
  cache: storage/cache  # of preprocessed cases, some 30 MB each
labels:
  table: null  # CSV of case and label (0 or 1), for studies that classify whole cases; it stays here
device: auto  # auto | cpu | cuda

# What may leave. These are the defaults; whatever is stricter is fine too.
policy:
  arrays: all  # all | no_statistics | a list of names
  metrics: all  # all | a list of names
  least_cases: 5  # behind any number that leaves
  privacy: false  # true: only studies with patient-level differential privacy ...
  epsilon: null  # ... that spend at most this
  secure_aggregation: false  # true: only studies in which the server sees sums over sites
  per_case: false  # true: scores of single cases may leave, under pseudonyms
  approval: true  # every study waits until somebody here has read its plan
"""

_README = """\
{site} in the federation {federation}

1. Keep this folder where only the account that runs fedbrats can read it.
{key}
3. {fill}
4. `fedbrats site preflight site.yaml` lists what is missing; `fedbrats site start site.yaml` joins.

Compare by telephone with the operator of the server:
authority (openssl x509 -in ca.crt -noout -fingerprint -sha256):
  {authority}
key of the site (ssh-keygen -l -f {file}):
  {fingerprint}
"""
_GIVEN = """\
2. site.key was made at the server. It is the site's identity: carry it over by a safe way, and have the copy
   at the server deleted. Safer is a key made here (`fedbrats site key`), of which the server only gets site.key.pub."""
_OWN = "2. The private key of this site is with you; put it beside this file as site.key (mode 0600)."


@contextmanager
def make_kit(folder: Folder, record: Federation, site: str, public: str | None) -> Iterator[tuple[Path, str]]:
    """Make the next kit of `site`; it is in its place when the context ends well.

    Args:
        folder: of the federation.
        record: before the key is in it.
        site: its name.
        public: key that the site made itself; without one, the kit holds a new private key.

    Yields:
        The kit's folder as it will be, and the site's public key.
    """
    number = len(record.sites.get(site, [])) + 1
    kit = folder.kit(site) / str(number)
    if kit.exists():
        raise ConfigError(f"{kit}: is there already though no key of the record belongs to it; move it away")
    private_folder(kit.parent)
    unfinished = private_folder(kit.with_name(f".partial-{os.urandom(4).hex()}-{kit.name}"))
    try:
        key = public or make_site_key(unfinished / KEY_FILE)
        write_text(unfinished / "ca.crt", folder.authority.read_text())
        if number == 1:  # afterwards the site has its own
            write_text(unfinished / "site.yaml", _site_file(record, site))
        authority = certificate_fingerprint(read_certificates(folder.authority)[0])
        write_text(
            unfinished / "README.txt",
            _README.format(
                site=site,
                federation=record.name,
                key=_OWN if public else _GIVEN,
                fill="Fill in site.yaml."
                if number == 1
                else "ca.crt and site.key replace those in use; restart.",
                authority=authority,
                file=f"{KEY_FILE}.pub",
                fingerprint=fingerprint(key),
            ),
        )
        yield kit, key
        replace_folder(unfinished, kit)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _site_file(record: Federation, site: str) -> str:
    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # a JSON string is one of YAML

    address = f"[{record.name}]" if ":" in record.name else record.name
    return _SITE.format(
        name=quoted(site),
        key=KEY_FILE,
        address=quoted(f"{address}:{record.port}"),
        versions=json.dumps(own_versions()),
    )
