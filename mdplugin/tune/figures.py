"""Outcome -> two PNGs: force error and force noise against speed, for blocks alone, presets and the policies searched."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from mdplugin.tune.blocks import TUNED
from mdplugin.tune.budget import value_of
from mdplugin.tune.report import base_ms
from mdplugin.tune.search import pareto
from mdplugin.tune.tuner import Outcome, Whole

FIGURES = {
    "force-error": ("force-rmse", "force RMSE against float64, meV/Å"),
    "force-noise": ("force-noise", "force noise (where not resolved, roughness), meV/Å"),
}


def draw_figures(outcome: Outcome, name_file: Callable[[str], Path]) -> list[Path]:
    """Write the figures; `name_file` gives the file of each name. Returns the files."""
    written = []
    for name, (quantity, label) in FIGURES.items():
        path = name_file(f"{name}.png")
        _draw(outcome, quantity, label).savefig(path, format="png", dpi=110)
        written.append(path)
    return written


def _draw(outcome: Outcome, quantity: str, label: str) -> Figure:
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    base = base_ms(outcome)
    wholes = [each for each in outcome.wholes if each.timing]
    values = [_height(each.row, quantity) for each in wholes]
    speeds = [base / each.timing.ms for each in wholes]
    _draw_blocks(axes, outcome, quantity)
    for i, each in enumerate(wholes):
        _draw_whole(axes, each, (speeds[i], values[i]), each is outcome.chosen)
        ends = [base / each.timing.high_ms, base / each.timing.low_ms]
        axes.plot(ends, [values[i]] * 2, color="0.6", linewidth=1, zorder=2)
    front = pareto([(each.timing.ms, value) for each, value in zip(wholes, values, strict=True)])
    axes.plot(
        [speeds[i] for i in front],
        [values[i] for i in front],
        color="0.4",
        linewidth=0.8,
        zorder=1,
        label="front",
    )
    if quantity in outcome.budget:
        axes.axhline(outcome.budget[quantity], color="tab:red", linewidth=1, linestyle="--", label="budget")
    axes.set_yscale("log")
    axes.set_xlabel("speed, times fp32's (network alone)")
    axes.set_ylabel(label)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _height(row: Mapping, quantity: str) -> float:
    """The quantity; on a logarithmic axis nothing is below 1e-8."""
    return max(value_of(row, quantity) or 0.0, 1e-8)


def _draw_blocks(axes, outcome: Outcome, quantity: str) -> None:
    for number, role in enumerate(TUNED):
        mine = [each for each in outcome.singles if each.block.role == role and each.timing]
        if mine:
            axes.scatter(
                [outcome.singles[0].timing.ms / each.timing.ms for each in mine],
                [_height(each.row, quantity) for each in mine],
                s=12, color=f"C{number}", alpha=0.6, label=f"{role}, one block alone",
            )  # fmt: skip


def _draw_whole(axes, whole: Whole, point: tuple[float, float], is_chosen: bool) -> None:
    if is_chosen:
        axes.scatter(*point, s=160, marker="*", color="tab:red", zorder=4, label=f"chosen: {whole.policy}")
    axes.scatter(
        *point, s=30, zorder=3, color="black" if whole.is_inside else "white", edgecolors="black",
        marker="s" if whole.is_preset else "o",
    )  # fmt: skip
    if whole.is_preset:
        axes.annotate(str(whole.policy), point, textcoords="offset points", xytext=(5, 4), fontsize=8)
