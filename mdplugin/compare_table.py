"""Rows of `mdplugin compare` -> Markdown: three tables and the sentences that say what they mean."""

from collections.abc import Collection, Sequence

import numpy as np

from mdplugin.compare import Comparison, Errors
from mdplugin.smoothness import RESOLVED

_ERRORS = (
    "energy RMSE meV/atom",
    "max",
    "force RMSE meV/Å",
    "max",
)
_PROBES = (
    "equivariance max meV/Å",
    "rms",
    "force noise meV/Å",
    "resolution",
    "force roughness meV/Å",
    "energy roughness meV/frame",
)


def format_tables(rows: Sequence[Comparison], foreign: Collection[str] = ()) -> str:
    """All that was measured; the first row is mace-torch in float64.

    Args:
        foreign: content_sha256 of the artifacts that were exported from another potential than the reference.
    """
    reference, *artifacts = rows
    parts = ["Errors against mace-torch in float64:", _float64_table(artifacts)]
    if any(row.smoothness for row in artifacts):
        parts += ["Symmetry and smoothness of each potential by itself:", _probe_table(artifacts)]
    if reference.labels:
        parts += ["Errors against the frames' own energies and forces:", _label_table(rows)]
        parts += ["\n".join(_sentence(row, reference, row.content_sha256 in foreign) for row in artifacts)]
    return "\n\n".join(parts)


def format_markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their cells; numbers to the right."""
    cells = [header, *lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]

    def row(line: Sequence[str]) -> str:
        texts = [
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(texts) + " |"

    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([row(header), row(rule), *map(row, lines)])


def format_value(value: float | None) -> str:
    """Three digits; a dash for what was not measured."""
    return "–" if value is None or np.isnan(value) else f"{value:.3g}"


def _elements(errors: Errors) -> dict[str, float]:
    return errors.force_rmse_by_element_meV_per_A


def _float64_table(rows: Sequence[Comparison]) -> str:
    symbols = list(_elements(rows[0].float64)) if rows else []
    header = ["model", "precision", *_ERRORS, *symbols, "stress max meV/Å³", "ms/frame", "MB"]
    return format_markdown(
        header,
        [
            [
                row.name,
                row.precision,
                *_error_cells(row.float64, symbols),
                format_value(row.float64.stress_max_meV_per_A3),
                format_value(row.ms_per_frame),
                format_value(row.file_MB),
            ]
            for row in rows
        ],
    )


def _error_cells(errors: Errors, symbols: Sequence[str]) -> list[str]:
    return [
        *map(
            format_value,
            (
                errors.energy_rmse_meV_per_atom,
                errors.energy_max_meV_per_atom,
                errors.force_rmse_meV_per_A,
                errors.force_max_meV_per_A,
            ),
        ),
        *(format_value(_elements(errors)[symbol]) for symbol in symbols),
    ]


def _probe_table(rows: Sequence[Comparison]) -> str:
    lines = []
    for row in rows:
        symmetry, smooth = row.equivariance, row.smoothness
        noise, resolution = smooth.force_noise_meV_per_A, smooth.force_noise_resolution_meV_per_A
        lines.append(
            [
                row.name,
                row.precision,
                format_value(symmetry.force_max_meV_per_A),
                format_value(symmetry.force_rms_meV_per_A),
                format_value(noise)
                if smooth.is_noise_resolved
                else f"< {format_value(RESOLVED * resolution)}",
                format_value(resolution),
                format_value(smooth.force_roughness_meV_per_A),
                format_value(smooth.energy_roughness_meV),
            ]
        )
    return format_markdown(["model", "precision", *_PROBES], lines)


def _label_table(rows: Sequence[Comparison]) -> str:
    symbols = list(_elements(rows[0].labels))
    lines = [[row.name, row.precision, *_error_cells(row.labels, symbols)] for row in rows]
    return format_markdown(["model", "precision", *_ERRORS, *symbols], lines)


def _sentence(row: Comparison, reference: Comparison, is_foreign: bool) -> str:
    """`water-w8.pt: w8 adds 0.3 meV/Å to the 52 meV/Å by which the potential itself misses the labels`."""
    if is_foreign:
        return f"{row.name}: not exported from {reference.name}, so what {row.precision} adds is not known"
    own, together = reference.labels.force_rmse_meV_per_A, row.labels.force_rmse_meV_per_A
    return (
        f"{row.name}: {row.precision} adds {format_value(row.float64.force_rmse_meV_per_A)} meV/Å to the {own:.3g} meV/Å by "
        f"which the potential itself misses the labels; together {together:.5g} instead of {own:.5g} (force RMSE)"
    )
