"""The reports that docs/policies keeps, judged again by the tests of today from the numbers that they hold.

    python examples/policy_rejudge.py docs

For when the tests change and the runs, which take hours, do not: estimates and figures stay what they were, verdicts are
made anew, and the pages are filled from them. The figures come out of the kept HTML.
"""

import base64
import dataclasses
import re
import sys
import tempfile
from pathlib import Path

from policy_pages import fill_pages

from mdplugin.machine import describe_machine
from mdplugin.validation.page import render_page
from mdplugin.validation.report import page_content, read_report, title

_FIGURE = re.compile(r'(?:data-name|alt)="([a-z ]+)"[^>]* src="data:image/png;base64,([^"]+)"')


def rejudge(path: Path) -> None:
    """Write the report at `path` (JSON) and the page beside it with the verdicts of today."""
    report = read_report(path)
    today = {"judged_again": describe_machine()["finished"]}
    report = dataclasses.replace(report, provenance={**report.provenance, **today})
    page = path.with_suffix(".html")
    with tempfile.TemporaryDirectory() as folder:
        figures = []
        for name, data in _FIGURE.findall(page.read_text()):
            figures.append(Path(folder) / f"{name.replace(' ', '-')}.png")
            figures[-1].write_bytes(base64.b64decode(data))
        content = page_content(report, figures)
    page.write_text(render_page(title(report), [content]))
    path.write_text(report.to_json())


def main() -> int:
    """Judge all kept reports of the docs/ that is named."""
    docs = Path(sys.argv[1])
    kept = docs / "policies"
    for page in sorted(kept.glob("*.html")):
        rejudge(page.with_suffix(".json"))
    fill_pages(kept, [docs / "precision.md", docs / "validation.md", docs.parent / "README.md"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
