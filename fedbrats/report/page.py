"""A page: one file that needs nothing else, from a template of this package and the sections that it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from fedbrats import __version__
from fedbrats.files import write_text
from fedbrats.report.style import styled
from fedbrats.tasks import segmentation as task


@dataclass(frozen=True)
class Section:
    """A part of a page that has something to show.

    `name` is that of its template, `sections/<name>.html.j2`, and its anchor; `title` its heading. `nav` is what the
    navigation calls it, "" for a section that is not in it. `context` is all that its template knows.
    """

    name: str
    title: str
    context: dict[str, Any]
    nav: str = ""

    @property
    def template(self) -> str:
        return f"sections/{self.name}.html.j2"


def write_page(
    path: Path,
    template: str,
    context: dict[str, Any],
    sections: Sequence[Section] = (),
    private: bool = False,
) -> Path:
    """Fill a template of this package and write it at once as a whole.

    Args:
        path: of the page.
        template: its name below this folder; it gets `context`, the version, and as `sections` a list of (section,
            its HTML).
        context: what the template prints itself.
        sections: what the page shows, in order.
        private: nobody but the owner may read it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of cases and institutions come from folders and tables
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["task"] = task  # what the regions and scores are called
    filled = [
        (section, environment.get_template(section.template).render(section.context)) for section in sections
    ]
    page = environment.get_template(template)
    write_text(path, page.render(version=__version__, sections=filled, **context), private)
    return path


def data_uri(figure: Figure, kind: str) -> str:
    """A figure as a data URI, "svg" or "png". An image of its own keeps the ids of several SVG apart."""
    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with styled():
        figure.savefig(stream, format=kind, dpi=130, metadata=metadata)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def pictured(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A section's context with its figures as data URIs; "" for a figure that it does not have."""
    drawn = {name: data_uri(figure, "svg") for name, figure in found["figures"].items()}
    return {**found, "figures": dict.fromkeys(names, "") | drawn}
