"""Plain values + figures -> one HTML page that needs nothing else: no script, no network."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2


def render_page(content: dict, figures: Sequence[Path]) -> str:
    """The page of page.html.j2 with the figures inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    images = [(path.stem.replace("-", " "), base64.b64encode(path.read_bytes()).decode()) for path in figures]
    return environment.get_template("page.html.j2").render(**content, figures=images)
