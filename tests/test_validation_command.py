"""Options of `mdplugin validate`: none is ignored, and all of them come to the cases that one expects."""

from types import SimpleNamespace

import ase.io
import pytest
from validation_artifacts import crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError
from mdplugin.validation import study
from mdplugin.validation.command import QUICK_NOTE
from mdplugin.validation.comparison import Outcome
from mdplugin.validation.pool import execute_runs
from mdplugin.validation.workspace import read_prepared


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nve --run x", "expected no CASE beside --run: it does one run of the case that DIR holds"),
        ("--run x --collect", "expected no --collect beside --run"),
        ("--run x --certify --json", "expected no --certify, --json beside --run"),
        ("--run x --quick --trust", "expected no --quick, --trust beside --run"),
        ("--collect nve", "expected no CASE beside --collect: it judges the case that DIR holds"),
        ("--collect --plan", "expected no --plan beside --collect"),
        ("--collect --model m.pt --length-ps 99", "expected no --model, --length-ps beside --collect"),
        ("--collect --seed 0 --quick --jobs 2", "expected no --seed, --quick, --jobs beside --collect"),
        ("--collect --temperature-K 0", "expected no --temperature-K beside --collect"),
        (
            "nve --plan --certify --json",
            "expected no --certify, --json beside --plan: it runs and judges nothing",
        ),
        ("nve --plan --jobs 2", "expected no --jobs beside --plan"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(tmp_path, capsys, words, message):
    assert main(["validate", *words.split(), "-o", str(tmp_path / "report")]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"mdplugin: {message}") and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("jobs", [0, -1, 1.5])
def test_runs_are_not_done_fewer_than_one_at_a_time(tmp_path, jobs):
    with pytest.raises(CaseError, match=f"^jobs: expected an integer of at least 1, got {jobs}$"):
        execute_runs((), tmp_path, jobs, quiet=True)


@pytest.fixture
def morse(tmp_path):
    """Options of a case that is prepared in no time."""
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    paths = [save_morse(tmp_path / "low.pt", "fp32"), save_morse(tmp_path / "morse.pt")]
    options = zip(("--model", "--reference", "--structure"), [*paths, tmp_path / "crystal.xyz"], strict=True)
    return [str(word) for option in options for word in option] + ["-o", str(tmp_path / "report")]


def plan_case(tmp_path, *words):
    """The case of a command."""
    assert main(["validate", *words, "--plan"]) == 0
    return read_prepared(tmp_path / "report")[0]


@pytest.mark.parametrize(
    ("words", "steps", "length_ps"),
    [
        (["nve"], 300, 0.15),
        (["silicon-64-nve"], 256, 0.256),
        (["nve", "--timestep-fs", "10"], 256, 2.56),
        (["silicon-64-nve", "--length-ps", "0.5"], 500, 0.5),
    ],
    ids=str,
)
def test_a_quick_look_is_long_enough_for_its_timestep(tmp_path, morse, words, steps, length_ps):
    case = plan_case(tmp_path, *words, *morse, "--quick")
    assert (case.steps, case.length_ps, case.replicas) == (steps, length_ps, 2)


def test_a_length_that_is_too_short_is_refused_in_a_quick_look_too(morse, capsys):
    assert main(["validate", "silicon-64-nve", *morse, "--quick", "--length-ps", "0.2"]) == 3
    assert "got 0.2 ps, 200 steps of 1 fs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "hot"),
    [(["--temperature-K", "700"], 700), (["--temperature-K", "200"], 500), ([], 500)],
    ids=str,
)
def test_of_all_cases_stability_is_the_hottest(tmp_path, morse, given, hot):
    assert main(["validate", "all", *morse, *given, "--plan"]) == 0
    found = {
        name: read_prepared(tmp_path / "report" / name)[0] for name in ("nve", "nvt", "npt", "stability")
    }
    assert found.pop("stability").temperature_K == hot
    assert {case.temperature_K for case in found.values()} == {float(given[1]) if given else 300.0}


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_a_quick_look_says_that_it_concludes_little(tmp_path, morse, monkeypatch, capsys, options):
    report = SimpleNamespace(
        case=SimpleNamespace(ensemble="nve"),
        directory=tmp_path,
        verdicts=(),
        outcome=Outcome.PASS,
        to_json=lambda: "{}",
    )
    monkeypatch.setattr(study, "validate", lambda case, directory, **options: report)
    assert main(["validate", "nve", *morse, "--quick", *options]) == 0
    out, error = capsys.readouterr()
    assert QUICK_NOTE in (error if options else out)
    assert not options or out == "{}\n"
