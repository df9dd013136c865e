"""Outcome -> the Pareto table, the table of blocks, one line of verdict, and the same as plain values for JSON."""

import dataclasses
from collections.abc import Mapping, Sequence

from mdplugin.bounds import QUANTITIES
from mdplugin.compare_table import format_markdown, format_value
from mdplugin.tune.blocks import BASE
from mdplugin.tune.budget import excess, value_of
from mdplugin.tune.search import pareto
from mdplugin.tune.tuner import Outcome, Single, Whole

_COLUMNS = ("force-rmse", "force-noise", "equivariance", "energy-rmse")
LEGEND = (
    "Fastest first. ms: median of the network alone; two of them differ where the difference is more than both ± together. "
    "budget: inside,\nor how many times the bound; = nothing inside is faster beyond the noise. * nothing here is both "
    "faster and nearer to float64 in forces."
)
BLOCK_LEGEND = (
    "What each block adds to the force RMSE, in meV/Å, in each format alone, and what it saves of fp32's time: "
    "beyond the noise where that is more than the ±."
)


def find_front(outcome: Outcome) -> list[Whole]:
    """The timed policies that none beats in both time and force error, by time."""
    timed = sort_wholes(outcome)
    return [timed[i] for i in pareto([(each.timing.ms, each.force_rmse) for each in timed])]


def sort_wholes(outcome: Outcome) -> list[Whole]:
    """The timed policies, fastest first."""
    timed = [each for each in outcome.wholes if each.timing]
    return sorted(timed, key=lambda each: (each.timing.ms, str(each.policy)))


def base_ms(outcome: Outcome) -> float:
    """fp32's time."""
    return next(each.timing.ms for each in outcome.wholes if str(each.policy) == BASE)


def format_report(outcome: Outcome) -> str:
    """The tables and the verdict."""
    parts = [_format_wholes(outcome), LEGEND]
    if outcome.singles:
        parts += [_format_singles(outcome.singles), BLOCK_LEGEND]
    return "\n\n".join([*parts, describe_choice(outcome)])


def _format_wholes(outcome: Outcome) -> str:
    names = list(dict.fromkeys([*_COLUMNS, *outcome.budget]))
    front, equal, base = find_front(outcome), outcome.equals, base_ms(outcome)
    units = [f"{name} {QUANTITIES[name].unit}" for name in names]
    header = ["policy", "budget", "ms", "±", "times fp32's speed", *units, "MB"]
    rows = []
    for each in sort_wholes(outcome):
        mark = " (chosen)" if each is outcome.chosen else ""
        rows.append(
            [
                f"{each.policy}{' *' if each in front else ''}{mark}",
                f"inside{' =' * (str(each.policy) in equal)}"
                if each.is_inside
                else f"{excess(each.findings)[0]:.2g} x",
                f"{each.timing.ms:.4g}",
                f"{each.timing.high_ms - each.timing.ms:.1g}",
                f"{base / each.timing.ms:.3f}",
                *(format_value(value_of(each.row, name)) for name in names),
                format_value(each.row["file_MB"]),
            ]
        )
    return format_markdown(header, rows)


def _format_singles(singles: Sequence[Single]) -> str:
    base, *others = singles
    names = list(dict.fromkeys(each.format for each in others))
    cells: dict[str, dict[str, str]] = {}
    for each in others:
        cells.setdefault(str(each.block), {})[each.format] = _format_single(each, base)
    rows = [[block, *(mine.get(name, "") for name in names)] for block, mine in cells.items()]
    return format_markdown(["block", *names], rows)


def _format_single(single: Single, base: Single) -> str:
    if single.timing is None:
        return "refused"
    saved, half = _saving(single, base)
    return f"{format_value(added_force_rmse(single, base))}, {100 * saved:+.1f} ± {100 * half:.1f} %"


def _saving(single: Single, base: Single) -> tuple[float, float]:
    """Part of fp32's time that is saved, and the sum of both half intervals."""
    a, b = single.timing, base.timing
    return (b.ms - a.ms) / b.ms, (b.high_ms - b.ms + a.high_ms - a.ms) / b.ms


def added_force_rmse(single: Single, base: Single) -> float:
    """What the block adds to fp32's force RMSE, in quadrature, meV/Å."""
    mine, other = (each.row["float64"]["force_rmse_meV_per_A"] for each in (single, base))
    return max(0.0, mine**2 - other**2) ** 0.5


def describe_choice(outcome: Outcome) -> str:
    """One line: what is taken, or the nearest policy and by how much it misses."""
    budget = ", ".join(f"{name} {bound:g} {QUANTITIES[name].unit}" for name, bound in outcome.budget.items())
    if outcome.chosen is None:
        times, finding = excess(outcome.nearest.findings)
        return (
            f"no policy meets the budget ({budget}): the nearest is {outcome.nearest.policy}, with {finding.name} "
            f"{finding.value:.3g} {QUANTITIES[finding.name].unit}, {times:.3g} times the bound"
        )
    chosen, equal = outcome.chosen, outcome.equals
    speed = base_ms(outcome) / chosen.timing.ms
    line = f"{chosen.policy}: {speed:.3f} times fp32's speed, inside the budget ({budget})"
    if len(equal) > 1:
        line += f"; of {len(equal)} that are equally fast within the noise (=) the one nearest to float64 in forces"
    return line


def as_dict(outcome: Outcome, context: Mapping, effort) -> dict:
    """Plain values; the same measurements give the same values."""
    front = find_front(outcome)
    base = outcome.singles[0] if outcome.singles else None
    return {
        "context": dict(context),
        "effort": dataclasses.asdict(effort),
        "budget": dict(outcome.budget),
        "chosen": outcome.chosen and str(outcome.chosen.policy),
        "verdict": describe_choice(outcome),
        "policies": [_whole_dict(each, outcome, each in front) for each in sort_wholes(outcome)],
        "outside_and_not_timed": [
            {"policy": str(each.policy), "refused": each.row.get("refused"), "findings": _findings(each)}
            for each in outcome.wholes
            if each.timing is None
        ],
        "blocks": [_single_dict(each, base) for each in outcome.singles],
    }


def _whole_dict(whole: Whole, outcome: Outcome, is_front: bool) -> dict:
    expected = whole.expected
    return {
        "policy": str(whole.policy),
        "spelled": whole.policy.spell(),
        "is_preset": whole.is_preset,
        "is_inside": whole.is_inside,
        "is_pareto": is_front,
        "is_equally_fast": str(whole.policy) in outcome.equals,
        "times_fp32_speed": base_ms(outcome) / whole.timing.ms,
        **dataclasses.asdict(whole.timing),
        "expected": expected
        and {
            "times_fp32_speed": outcome.singles[0].timing.ms / expected.ms,
            **{name: square**0.5 for name, square in zip(outcome.budget, expected.squares, strict=True)},
        },
        "findings": _findings(whole),
        "row": whole.row,
    }


def _findings(whole: Whole) -> list[dict]:
    return [dataclasses.asdict(each) for each in whole.findings]


def _single_dict(single: Single, base: Single) -> dict:
    timing = single.timing and dataclasses.asdict(single.timing)
    added = None if single.timing is None else added_force_rmse(single, base)
    return {
        "block": str(single.block) or BASE,
        "format": single.format,
        "added_force_rmse_meV_per_A": added,
        "timing": timing,
        "row": single.row,
    }
