"""README.md, docs/precision.md and docs/validation.md say what the kept results say."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/precision.md", "docs/validation.md", "README.md")


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import policy_pages

    yield policy_pages
    for name in ("policy_pages", "policy_artifacts", "policy_bounds", "policy_rdf", "policy_rejudge"):
        sys.modules.pop(name, None)


def test_the_tables_of_the_pages_are_those_of_the_kept_results(pages, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    pages.fill_pages(ROOT / "docs" / "policies", [tmp_path / name for name in PAGES])
    for name in PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "make policies writes it"


def outcomes_of(report):
    """What people read of a report.json; its numbers may differ in the last digit on another processor."""
    return [
        (verdict["sentence"], [(test["observable"], test["outcome"]) for test in verdict["tests"]])
        for verdict in report["verdicts"]
    ]


OUTSIDE = re.compile(r"""https?://|<script|@import|(?:src|href)=(?!["']?(?:data:|#))|url\((?!#)""")
KEPT = sorted(page.stem for page in (ROOT / "docs" / "policies").glob("*.html"))


@pytest.mark.parametrize("case", KEPT)
def test_kept_reports_have_the_verdicts_of_today_s_tests(pages, tmp_path, case):
    import policy_rejudge

    kept = ROOT / "docs" / "policies"
    for suffix in (".json", ".html"):
        shutil.copy(kept / f"{case}{suffix}", tmp_path)
    before, page = (json.loads((kept / f"{case}.json").read_text()), (kept / f"{case}.html").read_text())
    policy_rejudge.rejudge(tmp_path / f"{case}.json")
    after = json.loads((tmp_path / f"{case}.json").read_text())
    assert outcomes_of(after) == outcomes_of(before), "python examples/policy_rejudge.py docs"
    assert (after["findings"], after["outcome"]) == (before["findings"], before["outcome"])
    again = (tmp_path / f"{case}.html").read_text()
    assert again.count("data:image/png") == page.count("data:image/png") >= 3
    assert not OUTSIDE.search(re.sub(r"data:image/png;base64,[^\"]*", "data:", again))  # opens offline
    remark = re.compile(r"; its numbers judged again by the tests of [^.<]*")  # a fresh page has none
    assert remark.sub("", again) == remark.sub("", page)


def test_bounds_are_held_against_what_was_measured(pages):
    import policy_bounds

    def row(force, file_MB=1.0):
        return {
            "float64": {"force_rmse_meV_per_A": force},
            "equivariance": {"force_max_meV_per_A": 0.001, "force_rms_meV_per_A": 0.001},
            "smoothness": {"force_roughness_meV_per_A": 0.001},
            "file_MB": file_MB,
            "ms_per_frame": 1.0,
        }

    rows = {
        "fp64": row(0, 4),
        "fp32": row(0.02),
        "w16": row(0.09, 0.5),
        "w8": row(13),
        "w8-calibrated": row(5),
    }
    rows |= {"w8a8": row(20), "w8a8-calibrated": row(15)}
    outcomes = {"w16": "pass", "w8": "fail", "w8-calibrated": "–"}
    found = {each.what: each.holds for each in policy_bounds.list_bounds(rows, 50, outcomes.get)}
    missed = ["fp32: force RMSE", "w8: force RMSE of the DFT error", "w8: NVE against float64"]
    assert [what for what, holds in found.items() if holds is False] == missed
    assert [what for what, holds in found.items() if holds is None] == ["w8-calibrated: NVE against float64"]


def test_the_dft_s_rdfs_are_read_over_the_pairs_of_two_molecules(pages, tmp_path):
    import policy_rdf

    r, g, _ = policy_rdf.read_dft()
    # shared/data/reference_results/dft_pbe0ts_400frames_gOO.dat, an independent histogram of the same frames, has 2.832 at
    # 2.725 Å over N^2 of N = 64 oxygens
    assert abs(r[g["O-O"].argmax()] - 2.725) <= 1e-9 and abs(g["O-O"].max() * 63 / 64 - 2.832) <= 1e-3
    assert r[np.flatnonzero(g["H-H"])[0]] == pytest.approx(1.625)  # not the 1.5 Å of a molecule
    assert policy_rdf.write_rdf(tmp_path, "water") == policy_rdf.NOT_RUN


def test_rdfs_of_the_runs_stand_beside_the_dft_s(pages, tmp_path):
    import policy_rdf

    r, g, _ = policy_rdf.read_dft()
    rows = ["potential,replica,pair,r_A,g,pairs,centres"]
    for label, factor, nearest in (("reference", 1.0, 1.6), ("water-w8", 1.1, 1.0)):
        rows += [
            f"{label},{replica},{pair},{x:.3f},{factor * y + 0.001 * replica:.6g},{int(x > nearest)},640"
            for replica in range(3)
            for pair in policy_rdf.PAIRS
            for x, y in zip(r, g[pair], strict=True)
        ]
    (tmp_path / "water-192-nvt-rdf.csv").write_text("\n".join(rows) + "\n")
    header, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in policy_rdf.write_rdf(tmp_path, "water").splitlines()
    ]
    table = {line[0].split(",")[0]: dict(zip(header, line, strict=True)) for line in lines}
    for column in (2, 4, 6):  # each pair's height
        heights = {
            name: float(row[header[column]].split("±")[0])
            for name, row in table.items()
            if name in ("DFT", "float64", "w8")
        }
        assert abs(heights["float64"] - heights["DFT"] - 0.001) <= 2e-3
        assert abs(heights["w8"] - 1.1 * heights["DFT"] - 0.001) <= 2e-3
    nearest = {name: row["nearest H-H, Å"] for name, row in table.items()}
    assert (nearest["DFT"], nearest["float64"], nearest["w8"]) == ("1.60", "1.60", "1.00")
    # one run lies on the others' mean, two are 0.0015 off
    assert policy_rdf.read_band(tmp_path, "water", "float64") == pytest.approx(
        0.0015 * (2 / 3) ** 0.5, rel=0.01
    )
    policy_rdf.draw_rdf(tmp_path, "water")
    assert (tmp_path / "water-rdf.png").read_bytes().startswith(b"\x89PNG")
