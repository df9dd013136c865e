"""Options of `mdplugin validate`: none is ignored, and all of them come to the cases that one expects."""

import dataclasses
import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import ase.io
import pytest
from validation_artifacts import cluster, crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError
from mdplugin.validation import study, suite
from mdplugin.validation.case import OBSERVABLES, Case
from mdplugin.validation.command import QUICK_NOTE
from mdplugin.validation.comparison import Outcome
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.pool import execute_runs
from mdplugin.validation.progress import show_progress, show_suite
from mdplugin.validation.verdict import UnsoundReferenceError
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


def test_a_directory_without_a_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="3"):
        main(["validate", "nve", "-o", ""])
    error = capsys.readouterr().err
    assert "expected a directory, got ''; for the current one give ." in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
        (["nve"], 260, 0.13),
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


def test_a_quick_look_leaves_out_what_takes_runs_of_its_own_and_what_the_structure_does_not_have(
    tmp_path, morse
):
    case = plan_case(tmp_path, "nve", *morse, "--quick")
    assert not {"reversal", "timestep_exponent", "angular_momentum"} & set(case.observables)
    assert {"energy_drift", "gradient", "shadow"} <= set(case.observables)


def test_a_quick_nvt_names_no_observables_so_that_its_report_says_what_a_molecule_does_not_have(
    tmp_path, morse
):
    assert plan_case(tmp_path, "nvt", *morse, "--quick").observables == ()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_a_quick_look_says_that_it_concludes_little(tmp_path, morse, monkeypatch, capsys, options):
    report = SimpleNamespace(
        case=SimpleNamespace(ensemble="nve"),
        directory=tmp_path,
        verdicts=(),
        blame="",
        outcome=Outcome.PASS,
        to_json=lambda: "{}",
    )
    monkeypatch.setattr(study, "validate", lambda case, directory, **options: report)
    assert main(["validate", "nve", *morse, "--quick", *options]) == 0
    out, error = capsys.readouterr()
    assert QUICK_NOTE in (error if options else out)
    assert not options or out == "{}\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watch(monkeypatch):
    """What a terminal is shown on stderr; no fixture, since pytest sets stderr anew for the test itself."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_a_bar_starts_from_what_was_done_before(monkeypatch):
    terminal = watch(monkeypatch)
    with show_progress(1000, quiet=False, done=900) as reach:
        assert "| 900/1000 [00:00<?, ?step/s]" in terminal.getvalue()
        reach(950)
    assert "| 950/1000 " in terminal.getvalue()


def test_several_cases_have_one_bar(monkeypatch):
    terminal = watch(monkeypatch)
    with show_suite(1000, 250, quiet=False) as announce:
        for number, done in enumerate((250, 0), 1):
            announce(f"part {number}")
            with show_progress(500, quiet=False, done=done) as reach:
                reach(500)
    shown = terminal.getvalue()
    assert "part 1:  25%" in shown and "part 2:" in shown and "| 1000/1000 " in shown and "/500" not in shown
    with show_progress(500, quiet=False):
        assert "| 0/500 " in terminal.getvalue()  # its own again


@pytest.mark.parametrize("watched", [True, False])
def test_the_bar_of_all_says_which_case_is_at_work(morse, monkeypatch, watched):
    def work(case, directory, **options):
        steps = sum(plan.steps for plan in plan_runs(case))
        with show_progress(steps, options["quiet"]) as reach:
            reach(steps)
        if case.ensemble == "nvt":
            raise CaseError("the end")

    monkeypatch.setattr(study, "validate", work)
    monkeypatch.setattr(sys, "stderr", Terminal() if watched else io.StringIO())
    assert main(["validate", "all", *morse]) == 3
    shown = sys.stderr.getvalue()
    if watched:
        assert "nve, 1 of 4:   0%" in shown and "nvt, 2 of 4: " in shown
    else:
        assert shown == "nve, 1 of 4\nnvt, 2 of 4\nmdplugin: the end\n"


def test_all_of_a_molecule_is_without_npt(tmp_path, morse, capsys):
    ase.io.write(tmp_path / "crystal.xyz", cluster())
    assert main(["validate", "all", *morse, "--plan"]) == 0
    assert "npt is left out: crystal.xyz has no volume" in capsys.readouterr().err
    report = tmp_path / "report"
    assert {path.name for path in report.iterdir()} == {"nve", "nvt", "stability", "commands.txt"}
    assert main(["validate", "--collect", "-o", str(report)]) == 3
    assert "runs are not done" in capsys.readouterr().err  # npt is not missed


def test_a_case_whose_reference_is_not_sound_does_not_end_the_others(morse, monkeypatch, capsys):
    done = []

    def work(case, directory, **options):
        done.append(case.ensemble)
        blame = f"float64 is not sound in {case.ensemble}"
        raise UnsoundReferenceError(blame, SimpleNamespace(case=case, blame=blame))

    monkeypatch.setattr(study, "validate", work)
    monkeypatch.setattr(suite, "write_suite", lambda reports, directory: done.append(len(reports)))
    assert main(["validate", "all", *morse, "--quiet"]) == 3
    assert done == ["nve", "nvt", "npt", "stability", 4]
    assert capsys.readouterr().err == (
        "mdplugin: " + "; ".join(f"{name}: float64 is not sound in {name}" for name in done[:4]) + "\n"
    )


def test_all_is_collected_whole(tmp_path, morse, capsys):
    assert main(["validate", "all", *morse, "--plan"]) == 0
    capsys.readouterr()
    collect = ["validate", "--collect", "-o", str(tmp_path / "report")]
    assert main(collect) == 3
    assert "runs are not done" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "report" / "npt")
    assert main(collect) == 3
    error = capsys.readouterr().err
    assert "expected the cases of `all` (nve, nvt, npt, stability), got none of npt" in error
    assert error.count("\n") == 1


def test_a_planned_case_knows_its_models_from_anywhere(tmp_path, morse, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["low.pt" if word.endswith("low.pt") else word for word in morse]
    assert plan_case(tmp_path, "nve", *words).models == (str(tmp_path / "low.pt"),)


def test_the_tables_of_what_a_case_may_say_are_those_of_the_docs(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["validate", "--schema"])
    printed = capsys.readouterr().out
    page = Path(__file__).resolve().parents[1] / "docs" / "validation-case.md"
    assert page.read_text().endswith(printed), "mdplugin validate --schema prints them"
    for name in (
        *(field.name for field in dataclasses.fields(Case)),
        *sum(OBSERVABLES.values(), ()),
        *LIMITS,
    ):
        assert f"| `{name}` |" in printed
