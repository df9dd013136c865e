"""The report in a browser: nothing to complain of, and it can be read on a screen and on a telephone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import ase.io
import pytest
from validation_artifacts import crystal, save_morse

import mdplugin.validation
from mdplugin.cli import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
POLICIES = Path(__file__).parents[1] / "docs" / "policies"
PAGES = ("water-192-nve", "water-192-nvt", "silicon-64-nvt")
TEMPLATE = Path(mdplugin.validation.__file__).parent / "page.html.j2"
WIDTHS = (1280, 400)  # px
SMALLEST_PX = 12
LABEL_PX, SMALLEST_LABEL_PX = 10 / 72 * 110, 10  # of figures: 10 points at 110 dots per inch

# frames, since a headless window cannot be as narrow as a telephone
_WRAPPER = """<!doctype html>
<meta charset="utf-8">
<body>{frames}
<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach(each => {{ each.open = true; }});
    const texts = [...page.body.querySelectorAll("*")].filter(each => each.innerText && each.innerText.trim());
    const sizes = texts.map(each => parseFloat(frame.contentWindow.getComputedStyle(each).fontSize));
    const root = page.documentElement;
    const scales = [...page.images].map(each => each.width / each.naturalWidth);
    return {{
      texts: texts.length, smallest: Math.min(...sizes), width: root.clientWidth, scrolls: root.scrollWidth,
      scale: Math.min(...scales),
    }};
  }});
  document.body.replaceChildren(JSON.stringify(found));
}});
</script>
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")


def show(page, directory):
    """What a browser measures of a page in frames of WIDTHS, and what it writes to its console."""
    frames = [
        f'<iframe width="{width}" height="800" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    ]
    wrapper = directory / "wrapper.html"
    wrapper.write_text(_WRAPPER.format(frames="".join(frames)), encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={directory / 'profile'}", "--dump-dom", wrapper.as_uri()],
        capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1]
    return json.loads(found), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("name", PAGES)
def test_a_report_is_read_on_a_screen_and_on_a_telephone(tmp_path, name):
    style = re.compile(r"<style>.*?</style>", re.DOTALL)
    page = (POLICIES / f"{name}.html").read_text()
    page = style.sub(style.search(TEMPLATE.read_text())[0], page, count=1)  # as it is now
    assert_readable(*show(page, tmp_path))


@pytest.mark.slow
def test_a_report_of_today_is_read_on_both_too(tmp_path):
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    words = [
        "--model",
        str(save_morse(tmp_path / "low.pt", "fp32")),
        "--reference",
        str(save_morse(tmp_path / "morse.pt")),
    ]
    words += ["--structure", str(tmp_path / "crystal.xyz"), "-o", str(tmp_path / "report")]
    assert main(["validate", "all", *words, "--length-ps", "0.2", "--equilibration-ps", "0.02"]) in (0, 1, 2)
    for page in (tmp_path / "report" / "report.html", tmp_path / "report" / "nvt" / "report.html"):
        assert_readable(*show(page.read_text(), tmp_path))


def assert_readable(found, console):
    """Of what `show` found."""
    assert console == []  # it has no script: whatever stands there is an error
    for width, each in zip(WIDTHS, found, strict=True):
        assert width - 20 <= each["width"] <= width  # less a scroll bar
        assert each["texts"] > 100
        assert each["scrolls"] <= each["width"]
        assert each["smallest"] >= SMALLEST_PX
        assert each["scale"] * LABEL_PX >= SMALLEST_LABEL_PX


def test_a_page_with_faults_is_found_out(tmp_path):
    faults = """<div style="width: 2000px">wide</div><p style="font-size: 5px">tiny</p>
    <script>console.error("planted")</script>"""
    page = (POLICIES / f"{PAGES[0]}.html").read_text()
    found, console = show(page.replace("</body>", f"{faults}</body>"), tmp_path)
    assert len(console) == len(WIDTHS) and all("planted" in line for line in console)
    for each in found:
        assert each["scrolls"] > each["width"] and each["smallest"] < SMALLEST_PX
