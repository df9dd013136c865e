"""Plain values + figures -> one HTML page that needs nothing else: no script, no network."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from mdplugin.validation.figures import DESCRIPTIONS


def render_page(title: str, sections: Sequence[dict], overview: Sequence[tuple] = ()) -> str:
    """The page of page.html.j2.

    Args:
        sections: what `report.page_content` says of each case. overview: (candidate, outcome in each) for several.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(title=title, sections=sections, overview=overview)


def embed_figures(paths: Sequence[Path]) -> list[tuple[str, str, str]]:
    """(name, what it shows, the PNG in base64)."""
    return [
        (path.stem.replace("-", " "), DESCRIPTIONS[path.stem], base64.b64encode(path.read_bytes()).decode())
        for path in paths
    ]
