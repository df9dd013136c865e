"""Study -> tables of text."""

from collections.abc import Iterable, Sequence

from mdplugin.numerics.study import Study
from mdplugin.numerics.surface import WAYS


def format_study(study: Study) -> str:
    """All tables, in Markdown, each with its title."""
    parts = [
        f"{study.model}: {study.n_frames} frames ({', '.join(study.structures)}), {study.n_atoms} atoms, "
        f"{study.n_edges} edges; tables of {study.table_intervals} intervals; seed {study.seed}",
        "Relative error of every block in a type (operands rounded, sums in float32): measured / first order",
        _local(study),
        "How far the model holds: measured over first order, smallest to largest; largest error over the bound",
        _validity(study),
        "Amplification: relative force error over relative error of a stage, measured / model",
        _amplification(study),
        "Force error, meV/Å, of one block in a type, forward and reverse: measured / model",
        _force(study),
        f"The surface ({study.surface_atoms} atoms), meV/Å; heating, meV/atom/ps",
        _surface(study),
        "int8 node features, meV/Å, by what sets the step",
        _scales(study),
        "Rounded coefficients of the last layer's radial table: relative error of R / of dR/dr",
        _knots(study),
        "Largest coefficient of a column over the largest that an edge reads (median), by layer: "
        + ", ".join(f"{ratio:.2g}" for ratio in study.wasted_range),
        f"White force noise of 1 meV/Å per component heats by {study.heating_of_1_meV_per_A:.4f} meV/atom/ps at 0.5 fs; "
        "it grows with the square of the noise",
        _cancellation(study),
    ]
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _local(study: Study) -> str:
    rows = {}
    for row in study.local:
        if row.mode == "compute":
            key = (row.block, row.direction, row.tap, f"{row.condition:.3g}")
            rows.setdefault(key, []).append(f"{row.measured:.1e} / {row.first_order:.1e}")
    header = ["block", "direction", "output", "condition", *study.types]
    return _table(header, ([*key, *cells] for key, cells in rows.items()))


def _validity(study: Study) -> str:
    groups: dict[tuple[str, str], list] = {}
    for row in study.local:
        groups.setdefault((row.mode, row.type), []).append(row)
    cells = []
    for (mode, type_), rows in sorted(groups.items(), key=lambda item: item[0][0]):
        ratios = sorted((row.measured / row.first_order, f"{row.tap}") for row in rows if row.first_order > 0)
        cells.append(
            [
                mode,
                type_,
                f"{ratios[0][0]:.2f} ({ratios[0][1]})",
                f"{ratios[len(ratios) // 2][0]:.2f}",
                f"{ratios[-1][0]:.2f} ({ratios[-1][1]})",
                f"{max(row.of_bound for row in rows):.2f}",
            ]
        )
    return _table(["use", "type", "smallest", "median", "largest", "of the bound"], cells)


def _amplification(study: Study) -> str:
    return _table(
        ["stage", "measured", "model"],
        ([row.tap, f"{row.measured:.3g}", f"{row.model:.3g}"] for row in study.amplification),
    )


def _force(study: Study) -> str:
    rows: dict[tuple[str, str], list[str]] = {}
    for row in study.force:
        cell = f"{row.measured_meV_per_A:.2g} / {row.model_meV_per_A:.2g}"
        rows.setdefault((row.block, row.mode), []).append(cell)
    return _table(["block", "use", *study.types], ([*key, *cells] for key, cells in rows.items()))


def _surface(study: Study) -> str:
    rows = sorted(study.surface, key=lambda row: WAYS.index(row.way))
    cells = (
        [
            row.way,
            row.type,
            f"{row.force_rmse_meV_per_A:.2g}",
            f"{row.equivariance_meV_per_A:.1e}",
            f"{row.gradient_meV_per_A:.1e}",
            f"{row.noise_meV_per_A:.1e}",
            "–" if row.heating_meV_per_atom_per_ps is None else f"{row.heating_meV_per_atom_per_ps:.1e}",
        ]
        for row in rows
    )
    return _table(["rounded", "type", "force RMSE", "equivariance", "gradient", "noise", "heating"], cells)


def _cancellation(study: Study) -> str:
    c = study.cancellation
    lines = [
        f"Energy {c.energy_eV:.3f} eV, without E0 {c.interaction_eV:.3f} eV; stored and summed in float32, meV:"
    ]
    lines += [
        f"    {name}: error {c.fp32_meV[name]:.3g}, spacing of float32 {c.spacing_meV[name]:.2g}"
        for name in c.fp32_meV
    ]
    lines.append(
        f"Forces of {c.force_rms_eV_per_A:.3f} eV/Å (rms) are sums of edge terms, condition {c.force_condition:.3g}"
    )
    return "\n".join(lines)


def _scales(study: Study) -> str:
    return _table(
        ["scale", "force RMSE", "equivariance RMSE"],
        (
            [row.scale, f"{row.force_rmse_meV_per_A:.3g}", f"{row.equivariance_rmse_meV_per_A:.3g}"]
            for row in study.int8_scales
        ),
    )


def _knots(study: Study) -> str:
    rows: dict[int, list[str]] = {}
    for row in study.knots:
        rows.setdefault(row.intervals, []).append(f"{row.value:.1e} / {row.slope:.1e}")
    names = list(dict.fromkeys(row.type for row in study.knots))
    return _table(["intervals", *names], ([str(n), *cells] for n, cells in rows.items()))
