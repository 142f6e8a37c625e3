"""Whether the packages here are those of the server."""

from __future__ import annotations

from collections.abc import Mapping

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.config.versions import other_versions, own_versions


def check_versions(server: Mapping[str, str]) -> Finding:
    """Compare with the versions `server` of the time of enrolment; at joining the server compares anew."""
    own = own_versions()
    here = ", ".join(f"{name} {version}" for name, version in own.items())
    facts = {"here": own, "server": dict(server)}
    if not server:
        said = f"{here}; site.yaml does not say the server's (server.versions): ask its operator, as it refuses others."
        return Finding("versions", WARNING, said, "", facts)
    told = {name: str(server.get(name, "unknown")) for name in own}
    others = other_versions(own, {name: version.partition("+")[0] for name, version in told.items()})
    if others:
        said = "; ".join(f"{name} {ours} here, {theirs} at the server" for name, ours, theirs in others)
        return Finding("versions", FIX, f"{said}: install the server's, or take its image.", "", facts)
    return Finding("versions", OK, f"{here}, as at the server", "", facts)
