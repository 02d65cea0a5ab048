"""The table of a comparison: for the terminal, as CSV with a line a run, for a paper in LaTeX, and in Markdown."""

import csv
import io
import math

from deeptrain.compare import verdict
from deeptrain.compare.comparison import Comparison, Row
from deeptrain.report import formatting

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)
MARK = "*"  # of a difference that is more than chance


def header(found: Comparison) -> list[str]:
    other = "best" if found.value == "final" else "final"
    return [
        "setting",
        "runs",
        f"{found.monitor}, {found.value}",
        "95 % interval",
        other,
        "difference",
        "better",
        "gap",
        "time",
        "images/s",
    ]


def cells(found: Comparison, row: Row) -> list[str]:
    """Return the cells of a row as text, in the order of `header`."""
    numbers = [
        value_and_spread(found, row),
        over_folds(found, row),
        verdict.value_text(found, row.other_mean),
        difference(found, row),
        better_in(row),
        _number(row.gap, lambda gap: formatting.format_points(gap)),
        _number(row.mean_of("train_seconds"), formatting.duration),
        _number(row.mean_of("images_per_second"), formatting.speed),
    ]
    return [row.label, f"{len(row.values)}", *numbers]


def value_and_spread(found: Comparison, row: Row) -> str:
    spread = "" if math.isnan(row.spread) else f" ± {verdict.amount(found, row.spread)}"
    return verdict.value_text(found, row.mean) + spread


def over_folds(found: Comparison, row: Row) -> str:
    """Write the interval of the value itself, which only folds give: they differ in their images too."""
    if row.over_folds is None or math.isnan(row.over_folds.half):
        return ""
    return " to ".join(verdict.fold_ends(found, row))


def difference(found: Comparison, row: Row) -> str:
    """Write the difference from the baseline with its interval, in the metric's own direction."""
    if row.gain is None:
        return "baseline" if row is found.baseline and found.compared else ""
    value = row.gain.mean if found.higher else -row.gain.mean
    if math.isnan(row.gain.half):
        return verdict.amount(found, value, sign=True)
    mark = MARK if row.gain.is_clear else ""
    return f"{verdict.amount(found, value, sign=True)} ± {verdict.amount(found, row.gain.half)}{mark}"


def better_in(row: Row) -> str:
    """Say in how many runs of 100 the setting would be better than the baseline at the same seed."""
    if row.gain is None or math.isnan(row.gain.share_better):
        return ""
    return f"{100 * row.gain.share_better:.0f} %"


def _number(value: float, write) -> str:
    return "" if math.isnan(value) else write(value)


def terminal(found: Comparison, width: int = 60) -> list[str]:
    """Return the table in columns, then what is not in it."""
    table = [header(found), *(cells(found, row) for row in found.rows)]
    table = [[*([row[0] if len(row[0]) <= width else f"{row[0][: width - 1]}…"]), *row[1:]] for row in table]
    used = [index for index in range(len(table[0])) if index < 2 or any(row[index] for row in table[1:])]
    widths = {index: max(len(row[index]) for row in table) for index in used}
    return [
        "  ".join(f"{row[i]:<{widths[i]}}" if i == 0 else f"{row[i]:>{widths[i]}}" for i in used).rstrip()
        for row in table
    ]


def as_csv(found: Comparison) -> str:
    """Return a line a run: its setting, seed, values, cost and folder."""
    keys = list(dict.fromkeys(key for row in [*found.rows, *found.left_out] for key in row.setting.values))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    costs = ("train_seconds", "seconds", "images_per_second", "peak_memory", "parameters", "epochs")
    fold = ["fold"] if found.folds else []
    writer.writerow(
        [*keys, "seed", *fold, "status", f"{found.monitor} final", f"{found.monitor} best", *costs, "folder"]
    )
    for row in [*found.rows, *found.left_out]:
        for run in [*row.setting.runs, *row.setting.repeated]:
            values = [run.value(kind, found.monitor) for kind in ("final", "best")]
            numbers = [run.result.get(cost) for cost in costs]
            settings = [row.setting.values.get(key, "") for key in keys]
            texts = ["" if value is None else value for value in (*values, *numbers)]
            writer.writerow([*settings, run.seed, *([run.fold] if fold else []), run.status, *texts, run.path])
    return file.getvalue()


def markdown(found: Comparison) -> str:
    rows = [_paper_header(found), ["---", *["--:"] * 3], *(_paper_cells(found, row) for row in found.rows)]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", f"{_caption(found)}", ""])


def latex(found: Comparison) -> str:
    """Return a table for a paper; it needs the package booktabs."""
    body = [" & ".join(_tex(cell) for cell in _paper_cells(found, row)) + r" \\" for row in found.rows]
    head = " & ".join(_tex(cell) for cell in _paper_header(found)) + r" \\"
    lines = [r"\begin{tabular}{lrrr}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([f"% {_caption(found)}", *lines, ""])


def _paper_header(found: Comparison) -> list[str]:
    return [
        "setting",
        found.repeats,
        found.monitor,
        f"difference from {found.baseline.label if found.baseline else '-'}",
    ]


def _paper_cells(found: Comparison, row: Row) -> list[str]:
    return [row.label, f"{len(row.values)}", value_and_spread(found, row), difference(found, row) or "-"]


def _caption(found: Comparison) -> str:
    what = f"Values by the {found.value} weights: mean ± standard deviation over the {found.repeats}."
    if not found.is_claim:
        return what
    unit = " in points" if found.scale > 1 else ""
    return f"{what} Differences{unit} with {verdict.scope(found)}; {MARK} is more than chance."


def _tex(text: str) -> str:
    return text.translate(LATEX).replace("±", r"$\pm$")
