"""A table of figures as Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tinyyolo.config import UserError, suggest
from tinyyolo.evaluation.table import NOTHING
from tinyyolo.io import markdown_table, new_file, printable

ENDINGS = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
# What LaTeX reads as a command, or sets as another sign in its first font encoding.
ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
ESCAPED |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
LATEX = str.maketrans(ESCAPED)
FIGURE = re.compile(r"(AP|AR)_?(\w+)")  # with an index, as papers print it
CSV_DECIMALS = 4


class Spread(NamedTuple):
    """A figure over seeds.

    Attributes:
        mean: the mean.
        std: the standard deviation of a sample; None of one value.
        decimals: how many are shown.
    """

    mean: float
    std: float | None = None
    decimals: int = 1


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        cells: the row's name, and a figure, a text or None (nothing known) for each of the other columns.
        notes: what stands below the table about it.
        quoted: it was published, not measured here.
    """

    cells: Sequence[str | Spread | None]
    notes: tuple[str, ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: names of its columns, the first of which is that of the rows, and its lines."""

    header: Sequence[str]
    lines: Sequence[Line]

    def marks(self) -> dict[str, str]:
        """A letter for each note, in order."""
        notes = dict.fromkeys(note for line in self.lines for note in line.notes)
        letters = [*string.ascii_lowercase, *(a + b for a in string.ascii_lowercase for b in string.ascii_lowercase)]
        return dict(zip(notes, letters, strict=False))

    def spreads(self, column: int) -> list[Spread]:
        """The figures of a column."""
        return [cell for line in self.lines if isinstance(cell := line.cells[column], Spread)]


def form_of(form: str | None, out: str | Path | None) -> str:
    """The form that is asked for, by its name or by how the file's name ends; markdown where nothing says it.

    Raises:
        UserError: another name or ending.

    Examples:
        >>> form_of(None, "tables/main.tex"), form_of("csv", "a.txt"), form_of(None, None)
        ('latex', 'csv', 'markdown')
    """
    if form is not None:
        if form not in ENDINGS:
            raise UserError(f"format={form}: {suggest(form, ENDINGS)}")
        return form
    if out is None:
        return "markdown"
    known = {ending: name for name, ending in ENDINGS.items()}
    if (ending := Path(out).suffix.lower()) not in known:
        raise UserError(f"out={out}: format= does not say the table's form; {suggest(ending, known)}")
    return known[ending]


def write(sheet: Sheet, form: str, out: str | Path | None = None, overwrite: bool = False) -> str:
    """The table's text in one of the forms of ENDINGS, also written to `out`.

    Raises:
        UserError: `out` exists and `overwrite` is not set.
    """
    text = {"markdown": markdown, "latex": latex, "csv": as_csv}[form](sheet)
    if out is not None:
        with new_file(out, overwrite=overwrite) as file:
            file.write(text)
    return text


def cell_text(cell: str | Spread | None, pm: str = " ± ") -> str:
    """A cell in words.

    Examples:
        >>> cell_text(Spread(21.44, 0.25)), cell_text(Spread(41.381, None, 2)), cell_text("0, 1"), cell_text(None)
        ('21.4 ± 0.2', '41.38', '0, 1', '-')
    """
    if not isinstance(cell, Spread):
        return NOTHING if cell is None else printable(cell)
    spread = "" if cell.std is None else f"{pm}{cell.std:.{cell.decimals}f}"
    return f"{cell.mean:.{cell.decimals}f}{spread}"


def markdown(sheet: Sheet) -> str:
    """The table in Markdown; what was published is in italics.

    Examples:
        >>> print(markdown(Sheet(["", "AP"], [Line(["a", Spread(21.4, 0.25)], ("by hand",))])), end="")
        |  | AP |
        |---|---|
        | a <sup>a</sup> | 21.4 ± 0.2 |
        <BLANKLINE>
        <sup>a</sup> by hand
    """
    marks, rows = sheet.marks(), []
    for line in sheet.lines:
        cells = [cell_text(cell) for cell in line.cells]
        cells = [f"*{cell}*" if line.quoted and cell else cell for cell in cells]
        cells[0] += "".join(f" <sup>{marks[note]}</sup>" for note in line.notes)
        rows.append(cells)
    notes = [f"<sup>{mark}</sup> {printable(note)}" for note, mark in marks.items()]
    lines = markdown_table([printable(name) for name in sheet.header], rows)
    return "\n".join([*lines, *(["", "  \n".join(notes)] if notes else [])]) + "\n"


def escaped(text: str) -> str:
    """A text as LaTeX sets it.

    Examples:
        >>> print(escaped("50% of R_50 & more"))
        50\\% of R\\_50 \\& more
    """
    return text.translate(LATEX)


def latex_name(column: str) -> str:
    """The name of a column, an index of AP or AR below it.

    Examples:
        >>> print(latex_name("AP_vt"), latex_name("AP50"), latex_name("AP"), latex_name("M parameters"))
        AP$_{\\mathrm{vt}}$ AP$_{\\mathrm{50}}$ AP M parameters
    """
    found = FIGURE.fullmatch(column)
    return f"{found[1]}$_{{\\mathrm{{{escaped(found[2])}}}}}$" if found else escaped(printable(column))


def latex(sheet: Sheet) -> str:
    """The table as a `tabular` with the rules of the package booktabs; notes are its last lines."""
    marks, count = sheet.marks(), len(sheet.header)
    lines = []
    for line in sheet.lines:
        plain = [cell_text(cell, r" \pm ") for cell in line.cells]
        cells = [f"${text}$" if r"\pm" in text else escaped(text) for text in plain]
        cells = [rf"\textit{{{cell}}}" if line.quoted and cell else cell for cell in cells]
        cells[0] += "".join(rf"\textsuperscript{{{marks[note]}}}" for note in line.notes)
        lines.append(" & ".join(cells) + r" \\")
    sides = "".join("r" if sheet.spreads(column) else "l" for column in range(count))
    notes = [
        rf"\multicolumn{{{count}}}{{l}}{{\footnotesize\textsuperscript{{{mark}}} {escaped(printable(note))}}} \\"
        for note, mark in marks.items()
    ]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            " & ".join(map(latex_name, sheet.header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            *notes,
            r"\end{tabular}",
            "",
        ]
    )


def as_csv(sheet: Sheet) -> str:
    """The table as CSV: numbers without a dash or a sign, the deviation in a column of its own, notes in the last.

    Examples:
        >>> print(as_csv(Sheet(["", "AP"], [Line(["a", Spread(21.44, 0.25)]), Line(["b", None])])), end="")
        row,AP,AP std
        a,21.44,0.25
        b,,
    """
    spread = [any(one.std is not None for one in sheet.spreads(column)) for column in range(len(sheet.header))]
    noted = any(line.notes for line in sheet.lines)
    header = [name for name, two in zip(sheet.header, spread, strict=True) for name in [name, f"{name} std"][: 1 + two]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([header[0] or "row", *header[1:], *(["note"] if noted else [])])
    for line in sheet.lines:
        cells: list[str | float | None] = []
        for cell, two in zip(line.cells, spread, strict=True):
            pair = cell[:2] if isinstance(cell, Spread) else (cell, None)
            cells += [round(v, CSV_DECIMALS) if isinstance(v, float) else v for v in pair[: 1 + two]]
        writer.writerow([*cells, *(["; ".join(line.notes)] if noted else [])])
    return text.getvalue()
