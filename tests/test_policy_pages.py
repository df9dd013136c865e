"""README.md, docs/precision.md and docs/validation.md say what the kept results say."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/precision.md", "docs/validation.md", "README.md")


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import policy_pages

    yield policy_pages
    for name in ("policy_pages", "policy_artifacts", "policy_bounds"):
        sys.modules.pop(name, None)


def test_the_tables_of_the_pages_are_those_of_the_kept_results(pages, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    pages.fill_pages(ROOT / "docs" / "policies", [tmp_path / name for name in PAGES])
    for name in PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "make policies writes it"


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
