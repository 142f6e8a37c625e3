"""Health of a role, for compose: `health.py https://localhost:8000/health` or `health.py localhost:8082`.

Exit status 0 where the page answers 200, or where the port takes connections; a certificate is verified.
"""

from __future__ import annotations

import socket
import ssl
import sys
from urllib.request import urlopen

AUTHORITY = "/run/secrets/ca.crt"


def main(target: str, authority: str = AUTHORITY) -> int:
    """Look at one address.

    Args:
        target: an http or https page, or host:port.
        authority: certificate that a page's own must lead to.
    """
    try:
        if not target.startswith("http"):
            host, _, port = target.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            return 0
        context = ssl.create_default_context(cafile=authority) if target.startswith("https") else None
        with urlopen(target, timeout=5, context=context) as answer:
            return int(answer.status != 200)
    except (OSError, ValueError) as error:
        print(f"{target}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
