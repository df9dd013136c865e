"""Results of `mdplugin bench` -> JSON and back, tables, bounds, and the blocks of README.md and docs/performance.md."""

from pathlib import Path

import pytest
from bench_results import case, contender, lammps_run, results

from mdplugin.bench import publish
from mdplugin.bench.bounds import BOUNDS, format_bounds
from mdplugin.bench.report import format_lammps, format_results, format_speed, format_splits
from mdplugin.bench.results import read_results
from mdplugin.bench.table import format_number, format_table
from mdplugin.errors import CaseError

ROOT = Path(__file__).resolve().parents[1]


def cells(table, row):
    """The cells of one row of a Markdown table, the header being row 0."""
    return [cell.strip() for cell in table.splitlines()[row + (row > 0)].strip("|").split("|")]


def test_results_survive_their_file(tmp_path):
    written = results(case(lammps=(lammps_run(1, 0.06, 0.05),)), case("small", operations=None))
    (tmp_path / "results.json").write_text(written.to_json())
    assert read_results(tmp_path / "results.json") == written


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "cases": [{}]}'])
def test_what_is_no_results_file_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(CaseError, match=r"r\.json: expected results of `mdplugin bench") as refusal:
        read_results(tmp_path / "r.json")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.04567, "0.0457"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert format_number(value) == text


def test_a_table_lines_up():
    assert format_table(("a", "bb"), [("long", "1")]).splitlines() == [
        "| a    | bb |",
        "| :--- | -: |",
        "| long |  1 |",
    ]


def test_the_speed_table_divides_by_the_right_numbers():
    one, two = case(), case(threads=2, contenders=(contender("mdplugin", "fp32", 0.025),))
    header = cells(format_speed([one, two]), 0)
    ours = dict(zip(header, cells(format_speed([one, two]), 3), strict=True))
    assert ours["program"] == "mdplugin fp32"
    assert ours["µs/atom/step"] == "260"  # the median, 50 ms, over 192
    assert ours["quartiles"] == "247 to 299"  # of 45, 50, 65 ms: 47.5 and 57.5
    assert ours["mace-torch/this"] == "20.0"
    assert ours["% of GEMM"] == "40"  # 2 GFLOP in 50 ms, of 100 GFLOP/s
    assert ours["kB/atom"] == "52.1" and ours["peak MB"] == "210"
    assert ours["1 thread/this"] == "–"
    on_two = dict(zip(header, cells(format_speed([one, two]), 4), strict=True))
    assert on_two["1 thread/this"] == "2.00" and on_two["mace-torch/this"] == "–"
    mace = dict(zip(header, cells(format_speed([one, two]), 1), strict=True))
    assert mace["program"] == "mace-torch float64" and mace["mace-torch/this"] == "–"


def test_fp64_is_compared_with_both_types_of_mace_torch():
    fp64 = case(contenders=(*case().contenders[:2], contender("mdplugin", "fp64", 0.1)))
    ours = dict(zip(cells(format_speed([fp64]), 0), cells(format_speed([fp64]), 3), strict=True))
    assert ours["mace-torch/this"] == "20.0" and ours["its fp32/this"] == "10.0"


def test_the_split_shows_shares_of_the_profiled_step():
    (table,) = format_splits([case()])
    assert cells(table, 1) == ["neighbour list", "1.30", "25.0", "–"]
    assert cells(table, 2) == ["convolve 1", "2.60", "50.0", "40"]  # 20 MFLOP in 0.5 ms, of 100 GFLOP/s
    assert cells(table, 4)[:2] == ["whole step, profiled", "5.21"]
    assert cells(table, 5)[:2] == ["whole step, timed", "260"]


def test_the_lammps_table_counts_rare_lists_into_the_overhead():
    table = format_lammps(
        [case(n_atoms=1000, lammps=(lammps_run(1, 0.055, 0.05), lammps_run(2, 0.0275, 0.02)))]
    )
    one, two = (dict(zip(cells(table, 0)[6:], cells(table, row)[6:], strict=True)) for row in (1, 2))
    assert one["µs/atom/step"] == "55.0" and one["1 rank / this"] == "–" and two["1 rank / this"] == "2.00"
    assert one["overhead"] == "12.0 %"  # 0.055 + 0.001, a third of the list's 0.003, over 0.05
    assert one["neighbor"] == "1.00" and one["network"] == "50.0"


def test_a_busy_machine_is_said_to_be_one():
    assert "busy with other work (1.2 cores)" in format_results(results(case(), case(others=1.2)))
    assert "busy" not in format_results(results(case()))


def scale(n_atoms, seconds, used, **changes):
    return case(n_atoms=n_atoms, contenders=(contender("mdplugin", "fp32", seconds, used),), **changes)


def all_cases():
    """Every bound is met by a hair or missed by one."""
    fp64 = contender("mdplugin", "fp64", 2.0 / 13.9)
    cluster = case(
        "small", 27, system="cluster", contenders=(*case().contenders[:2], contender("mdplugin", "fp32", 0.1))
    )
    return [
        case(contenders=(*case().contenders, fp64)),
        case("small", contenders=(*case().contenders[:2], contender("mdplugin", "fp32", 1 / 15.1))),
        cluster,
        scale(648, 0.17, 10**7),
        case(n_atoms=648, threads=2, contenders=(contender("mdplugin", "fp32", 0.1),)),
        scale(1002, 1.0, 10**8),
        scale(100_002, 100_002 / 1002 * 1.16, 6_500_000_000),
        scale(9_999, 9.0, 10**8, allocator="stock"),
        scale(100_002, 99.0, 6_500_130_000, allocator="stock"),
        case(n_atoms=1536, contenders=(), lammps=(lammps_run(1, 0.05, 0.05), lammps_run(2, 0.03, 0.02))),
    ]  # fmt: skip


def test_bounds_are_judged_by_their_own_numbers():
    found = {bound.claim: bound.measure(all_cases()) for bound in BOUNDS}
    verdicts = {bound.claim: bound.verdict(found[bound.claim]) for bound in BOUNDS}
    # LAMMPS on one rank: (3 * 0.05 + 0.003) / (3 * 0.05) - 1
    expected = [20.0, 15.1, 13.9, 1.7, 10.0, 65.0, 6.7, 16.0, 2.0, 5 / 3]
    assert list(found.values()) == pytest.approx(expected, rel=1e-4)
    assert [verdict == "holds" for verdict in verdicts.values()] == [
        True, True, False, True, True, False, True, False, True, False,
    ]  # fmt: skip


def test_a_bound_that_nothing_tells_is_not_measured():
    table = format_bounds([case(allocator="stock")])
    assert table.count("not measured") == len(BOUNDS)
    assert BOUNDS[0].verdict(float("nan")) == "fails"


TEXT = "# Title\n<!-- bench:speed -->\nold\n<!-- /bench:speed -->\nbetween\n<!-- bench:bounds -->\n<!-- /bench:bounds -->\n"


def test_blocks_are_replaced_and_nothing_else():
    slower = case(allocator="stock", contenders=(contender("mdplugin", "fp32", 0.1), *case().contenders[:2]))
    measured = [results(case(), slower)]
    filled = publish.fill_tables(TEXT, measured, "README.md")
    assert "\nold\n" not in filled and filled.startswith("# Title\n<!-- bench:speed -->\n| network")
    assert "\n<!-- /bench:speed -->\nbetween\n<!-- bench:bounds -->\n| what" in filled
    assert "20.0 (10.0)" in filled  # the stock allocator's ratio in brackets
    assert publish.fill_tables(filled, measured, "README.md") == filled


def test_without_results_a_block_says_how_to_get_them():
    assert publish.fill_tables(TEXT, [], "x").count("make bench") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no block", "got none"),
        (TEXT.replace("bounds", "bonds"), "expected a block of speed, .*, got 'bonds'"),
    ],
)
def test_a_wrong_block_is_refused_and_nothing_is_written(tmp_path, capsys, text, message):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(TEXT)
    bad.write_text(text)
    assert publish.main([str(tmp_path), str(good), str(bad)]) == 3
    assert good.read_text() == TEXT
    with pytest.raises(CaseError, match=message):
        publish.fill_tables(text, [], "bad.md")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md", "docs/precision.md"])
def test_the_tables_of_the_documents_are_those_of_the_committed_results(name):
    text = (ROOT / name).read_text()
    assert publish.fill_tables(text, publish.gather(ROOT / "docs" / "benchmarks"), name) == text


def test_policies_stand_beside_fp32_and_mace_torch():
    policies = case(
        contenders=(
            contender("mace-torch", "float32", 1.0),
            contender("mdplugin", "fp32", 0.05),
            contender("mdplugin", "w8", 0.05),
            contender("mdplugin", "w8a16", 0.04),
        )
    )
    table = publish.write_block("policies", [results(case(), policies)])
    assert (
        len(table.split("\n\n")[0].splitlines()) == 5
    )  # header, rule, three policies: `case()` has only fp32
    assert cells(table, 3)[2:] == ["w8a16", "208", "198 to 240", "1.25", "25.0"]
    assert publish.write_block("policies", [results(case())]) == publish.NOT_MEASURED
