"""Rows of cells -> a Markdown table whose columns also line up in a terminal."""

from collections.abc import Sequence

NOTHING = "–"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table; the first column is aligned to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *["-" * (width - 1) + ":" for width in widths[1:]]]
    lines = []
    for row in (header, rule, *rows):
        cells = [
            row[0].ljust(widths[0]),
            *[cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, without exponent; a dash for None."""
    if value is None:
        return NOTHING
    magnitude = len(str(int(abs(value))))
    return f"{value:,.{max(0, digits - magnitude)}f}" if abs(value) >= 1 else f"{value:.{digits}g}"
