"""Where the configuration files of fedbrats are."""

from __future__ import annotations

from pathlib import Path

import fedbrats


def conf_folder() -> Path:
    """The configuration files: packaged with the installation, or `conf/` of the checkout."""
    package = Path(fedbrats.__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"
