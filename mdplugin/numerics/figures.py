"""Study -> PNGs, each with its data as JSON beside it."""

import dataclasses
import json
from pathlib import Path

from matplotlib.figure import Figure

from mdplugin.number_types import TYPES
from mdplugin.numerics.error_model import MODES
from mdplugin.numerics.study import Study

TITLES = {
    "harmonics": "spherical harmonics",
    "radial": "radial table",
    "up": "linear map (up)",
    "convolution": "tensor-product convolution",
    "linear": "linear map (message)",
    "contraction": "symmetric contraction",
    "readout": "readout",
    "sums": "sums: energy | forces",
}
COLORS = {"storage": "C0", "compute": "C1", "low sums": "C3"}
LABELS = {
    "storage": "storage",
    "compute": "compute, sums in float32",
    "low sums": "sums in the type",
}
MARKS = {"storage": "o", "compute": "s", "low sums": "^"}


def draw_figures(study: Study, directory: Path) -> list[str]:
    """Write all figures; their names."""
    names = []
    for name, draw in _FIGURES.items():
        figure, rows = draw(study)
        figure.savefig(directory / f"numerics-{name}.png", dpi=80, metadata={"Software": None})
        data = {
            "model": study.model,
            "structures": study.structures,
            "seed": study.seed,
            "machine": study.machine,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        (directory / f"numerics-{name}.json").write_text(json.dumps(data) + "\n")
        names.append(f"numerics-{name}.png")
    return names


def _chosen(study: Study, direction: str) -> dict[str, list]:
    """Rows of one output of every kind of block, of the last layer where there are several."""
    groups: dict[str, dict[str, list]] = {}
    for row in study.local:
        if row.direction == direction:
            kind = row.block.partition(".")[0]
            groups.setdefault(kind, {}).setdefault(row.tap, []).append(row)
    return {kind: list(groups[kind].values())[-1] for kind in TITLES if kind in groups}


def _draw_blocks(study: Study, direction: str):
    groups = _chosen(study, direction)
    figure = Figure(figsize=(14, 6.6), layout="constrained")
    axes = figure.subplots(2, (len(groups) + 1) // 2, sharex=True, sharey=True).ravel()
    for axis, (kind, rows) in zip(axes, groups.items(), strict=False):
        for mode in MODES:
            _draw_mode(axis, study.types, mode, [row for row in rows if row.mode == mode])
        title = TITLES[kind].split(": ")[-1].split(" | ")
        title = title[0 if direction == "forward" else -1] if kind == "sums" else TITLES[kind]
        axis.set_title(f"{title} ({rows[0].tap}), condition {rows[0].condition:.2g}", fontsize=9)
        axis.set_yscale("log")
        axis.set_ylim(1e-10, 10)
        axis.set_xticks(range(len(study.types)), study.types, rotation=45)
        axis.grid(alpha=0.3)
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    axes[1].legend(fontsize=8, loc="lower right")
    figure.supylabel("relative error against float64 (rms)")
    figure.suptitle(
        f"{study.model}, {direction}: measured (marks), first order (lines), worst case of compute (dotted)"
    )
    return figure, [row for rows in groups.values() for row in rows]


def _draw_mode(axis, types: list[str], mode: str, rows: list) -> None:
    """Floats and fixed point apart: the spacing of one has nothing to do with that of the other."""
    for fixed in (False, True):
        mine = [row for row in rows if TYPES[row.type].is_fixed == fixed]
        x = [types.index(row.type) for row in mine]
        label = None if fixed else LABELS[mode]
        axis.plot(x, [row.measured for row in mine], MARKS[mode], color=COLORS[mode], ms=6, label=label)
        axis.plot(x, [row.first_order for row in mine], "-", color=COLORS[mode], lw=1)
        if mode == "compute":
            axis.plot(x, [row.worst_case for row in mine], ":", color="0.4", lw=1.2)


def _draw_curve(study: Study):
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    taps = list(dict.fromkeys(row.tap for row in study.curve))
    for axis, tap in zip(figure.subplots(1, len(taps), sharey=True), taps, strict=True):
        for mode in MODES[1:]:
            rows = [row for row in study.curve if row.tap == tap and row.mode == mode]
            if not rows:
                continue
            p = [int(row.type[1:]) for row in rows]
            axis.plot(
                p, [r.measured for r in rows], MARKS[mode], color=COLORS[mode], ms=5, label=LABELS[mode]
            )
            axis.plot(p, [r.first_order for r in rows], "-", color=COLORS[mode], lw=1)
            axis.plot(p, [r.worst_case for r in rows], ":", color=COLORS[mode], lw=1)
        axis.set_yscale("log")
        axis.set_ylim(1e-8, 10)
        axis.set_title(f"{tap} ({'forward' if tap.startswith('A') else 'reverse'})", fontsize=10)
        axis.set_xlabel("bits of the significand")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.suptitle("Tensor-product convolution: measured (marks), first order (lines), worst case (dotted)")
    figure.supylabel("relative error (rms)")
    return figure, study.curve


def _draw_amplification(study: Study):
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    rows = study.amplification
    x = range(len(rows))
    axis.bar([k - 0.2 for k in x], [r.measured for r in rows], 0.4, label="measured", color="C0")
    axis.bar([k + 0.2 for k in x], [r.model for r in rows], 0.4, label="first order", color="C1")
    axis.set_xticks(list(x), [r.tap for r in rows], rotation=60)
    axis.set_yscale("log")
    axis.axhline(1, color="0.5", lw=0.8)
    axis.set_ylabel("relative force error / relative error of the stage")
    axis.set_title(f"{study.model}: amplification of each stage's output to the forces")
    axis.legend()
    return figure, rows


def _draw_force(study: Study):
    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    rows = [row for row in study.force if row.mode == "compute"]
    blocks = list(dict.fromkeys(row.block for row in rows))
    for k, name in enumerate(study.types):
        mine = [row for row in rows if row.type == name]
        x = [blocks.index(row.block) + 0.09 * (k - 3.5) for row in mine]
        axis.plot(x, [r.measured_meV_per_A for r in mine], "o", color=f"C{k}", ms=4, label=name)
        axis.plot(x, [r.model_meV_per_A for r in mine], "_", color=f"C{k}", ms=9)
    axis.set_yscale("log")
    axis.set_xticks(range(len(blocks)), blocks, rotation=30)
    axis.set_ylabel("force error, meV/Å (rms)")
    axis.set_title(f"{study.model}: one block in a type, forward and reverse: measured (dots), model (bars)")
    axis.grid(alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, rows


def _draw_surface(study: Study):
    figure = Figure(figsize=(11, 4), layout="constrained")
    quantities = {
        "force_rmse_meV_per_A": "force error (rms)",
        "equivariance_meV_per_A": "equivariance error (max)",
        "gradient_meV_per_A": "force minus gradient of the energy",
    }
    marks = {"parameters": "o", "state": "^", "couplings": "x"}
    for axis, (key, title) in zip(figure.subplots(1, 3, sharey=True), quantities.items(), strict=True):
        for way, mark in marks.items():
            rows = [row for row in study.surface if row.way == way]
            values = [max(getattr(row, key), 1e-13) for row in rows]
            axis.plot(range(len(rows)), values, mark, label=f"{way} rounded")
        axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(study.types)), study.types, rotation=45)
        axis.grid(alpha=0.3)
        if key == "equivariance_meV_per_A":
            axis.legend(fontsize=8)
    figure.supylabel("meV/Å")
    return figure, study.surface


_FIGURES = {
    "forward": lambda study: _draw_blocks(study, "forward"),
    "reverse": lambda study: _draw_blocks(study, "reverse"),
    "tensor-product": _draw_curve,
    "amplification": _draw_amplification,
    "forces": _draw_force,
    "surface": _draw_surface,
}
