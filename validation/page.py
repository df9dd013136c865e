"""Plain values + figures -> one HTML page that needs nothing else: no script, no network."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2


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


def embed_figures(paths: Sequence[Path], descriptions: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, what it shows, the PNG in base64); `descriptions` by the stem of the file."""
    return [
        (path.stem.replace("-", " "), descriptions[path.stem], base64.b64encode(path.read_bytes()).decode())
        for path in paths
    ]
