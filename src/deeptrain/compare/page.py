"""From a comparison to its page: the rows, the curves, the sentences on method, the commands."""

import math
from collections import defaultdict
from collections.abc import Sequence

from deeptrain.compare import tables, verdict
from deeptrain.compare.collect import Run
from deeptrain.compare.comparison import Comparison, Contrast, Row
from deeptrain.compare.statistics import Interval
from deeptrain.config.override import override_key
from deeptrain.config.repeats import FOLDS
from deeptrain.report.comparison import Curve, IntervalRow, PageData, Strip
from deeptrain.runtime.paths import quote
from deeptrain.runtime.resources import command

MAX_CURVES = 24
UNFINISHED = {  # by status: the title of the list
    "failed": "Failed",
    "interrupted": "Interrupted: go on with resume",
    "unfinished": "Not finished: go on with resume",
    "waiting": "Not started yet",
    "pruned": "Pruned by the search",
}


def page_of(found: Comparison, title: str) -> PageData:
    """Collect what the page says."""
    return PageData(
        title=title,
        subtitle=_subtitle(found),
        headline=verdict.headline(found),
        repeats=found.repeats,
        sentences=verdict.sentences(found),
        rows=[_row(found, row, index) for index, row in enumerate(found.rows)] if found.is_claim else [],
        axis=f"Difference in {found.monitor}{', in points' if found.scale > 1 else ''}.",
        sign=1 if found.higher else -1,
        table=_table(found),
        separate=_separate(found),
        curves=_curves(found),
        curves_title=f"{found.monitor} over the epochs",
        as_percent=found.scale > 1,
        differences=_differences(found),
        pairs=[_contrast(found, each) for each in found.pairs],
        classes=[_contrast(found, each) for each in found.classes],
        classes_title=_classes_title(found),
        problems=_problems(found),
        method=_method(found),
        notes=found.notes,
        commands=[(row.label, repeat_command(row)) for row in [*found.rows, *found.left_out]],
    )


def _subtitle(found: Comparison) -> str:
    done = sum(run.is_done for run in found.runs)
    count = f"{done} runs" if done == len(found.runs) else f"{done} of {len(found.runs)} runs are finished"
    settings = len(found.rows) + len(found.left_out)
    seeds = sorted({len(row.values) for row in found.rows})
    most = (seeds or [0])[-1]
    what = found.repeats[:-1] if most == 1 else found.repeats
    each = f"{seeds[0]} to {most} {found.repeats} each" if len(seeds) > 1 else f"{most} {what} each"
    base = f", against {found.baseline.label}" if found.baseline and found.compared else ""
    return f"{count}, {settings} settings, {each}. {found.monitor} by the {found.value} weights{base}."


def _row(found: Comparison, row: Row, index: int) -> IntervalRow:
    value = tables.value_and_spread(found, row)
    if row is found.baseline or row.gain is None:
        return IntervalRow(row.label, value, "baseline" if row is found.baseline else "", None, "baseline", index)
    dots = [found.scale * gain for gain in row.gains.values()]
    strip = Strip(found.scale * row.gain.mean, found.scale * row.gain.half, dots)
    return IntervalRow(
        row.label, value, tables.difference(found, row).rstrip(tables.MARK), strip, _kind(row.gain), index
    )


def _kind(interval: Interval) -> str:
    if not interval.is_clear:
        return ""
    return "better" if interval.mean > 0 else "worse"


def _contrast(found: Comparison, contrast: Contrast) -> IntervalRow:
    own = contrast.interval
    value = own.mean if found.higher else -own.mean
    text = f"{verdict.amount(found, value, sign=True)} ± {verdict.amount(found, own.half)}"
    return IntervalRow(contrast.name, "", text, Strip(found.scale * own.mean, found.scale * own.half), _kind(own))


def _table(found: Comparison) -> list[list[str]]:
    """Return the table of all numbers, with the memory where a GPU has told it."""
    rows = [tables.header(found), *(tables.cells(found, row) for row in found.rows)]
    memory = [row.mean_of("peak_memory") for row in found.rows]
    if any(math.isfinite(value) for value in memory):
        texts = ["" if math.isnan(value) else f"{value / 2**30:.2f} GiB" for value in memory]
        rows = [[*row, text] for row, text in zip(rows, ["GPU memory", *texts], strict=True)]
    used = [index for index in range(len(rows[0])) if index < 2 or any(row[index] for row in rows[1:])]
    return [[row[index] for index in used] for row in rows] if found.rows else []


def _separate(found: Comparison) -> str:
    """Name the settings that cannot be told apart from the best one."""
    near = [row for row in found.rows if row.may_be_best]
    if len(near) < 2:
        return ""
    return f"{verdict.names(near, len(near))}: the best one is among these {len(near)} in 95 % of such comparisons."


def _differences(found: Comparison) -> list[list[str]]:
    """Return the settings of few runs key by key, where there is one run each."""
    if found.is_claim or not 2 <= len(found.rows) <= 4:
        return []
    keys = list(dict.fromkeys(key for row in found.rows for key in row.setting.values))
    numbers = ("train_seconds", "parameters", "epochs")
    columns = [[row.setting.values.get(key, "-") for key in keys] for row in found.rows]
    for column, row in zip(columns, found.rows, strict=True):
        tags = sorted(row.setting.runs[0].final)
        column += [f"{value:.4g}" for tag in tags if isinstance(value := row.setting.runs[0].final[tag], float)]
        column += [f"{row.mean_of(name):,.6g}" for name in numbers]
    tags = sorted(tag for tag, value in found.rows[0].setting.runs[0].final.items() if isinstance(value, float))
    names = [*keys, *tags, *(name.replace("_", " ") for name in numbers)]
    if len({len(column) for column in [names, *columns]}) > 1:  # they were not measured by the same metrics
        names, columns = keys, [column[: len(keys)] for column in columns]
    return [["", *(row.label for row in found.rows)], *map(list, zip(names, *columns, strict=True))]


def _curves(found: Comparison) -> list[Curve]:
    """Return the metric over the epochs, of the weights that count."""
    average = any(
        f"{found.monitor}_average" in row for each in found.rows for run in each.setting.runs for row in run.rows
    )
    curves = []
    for row in found.rows[:MAX_CURVES]:
        by_epoch: dict[float, list[float]] = defaultdict(list)
        for run in (run for run in row.setting.runs if run.repeat in row.values):
            for line in run.rows:
                tag = f"{found.monitor}_average" if average and f"{found.monitor}_average" in line else found.monitor
                if tag in line and math.isfinite(line[tag]):
                    by_epoch[line["epoch"]].append(line[tag])
        epochs = sorted(by_epoch)
        if len(epochs) > 1:
            means = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
            lows, highs = ([end(by_epoch[epoch]) for epoch in epochs] for end in (min, max))
            curves.append(Curve(row.label, row is found.baseline, epochs, means, lows, highs))
    return curves if len(curves) == len(found.rows[:MAX_CURVES]) else []


def _classes_title(found: Comparison) -> str:
    rows = [row for row in found.compared if row.gain]
    if not rows or found.baseline is None:
        return ""
    best = max(rows, key=lambda row: row.gain.mean if row.gain else 0)
    return f"Class by class: {best.label} against {found.baseline.label}"


def _problems(found: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """List the runs that do not count, by what became of them."""
    lists = []
    collapsed = [run for row in [*found.rows, *found.left_out] for run in row.collapsed]
    if collapsed:
        lists.append(
            (
                "Learned nothing",
                [(str(run.path), "its answers are no better than always the same class") for run in collapsed],
            )
        )
    for status, title in UNFINISHED.items():
        if runs := found.with_status(status):
            lists.append((title, [(str(run.path), _standing(found, run)) for run in runs]))
    return lists


def _standing(found: Comparison, run: Run) -> str:
    """Say why a run does not count, or how far it has come."""
    if run.reason:
        return run.reason
    rows = [row for row in run.rows if found.monitor in row]
    if not rows:
        return ""
    return f"{verdict.value_text(found, rows[-1][found.monitor])} after epoch {rows[-1]['epoch']:g}"


def _method(found: Comparison) -> list[str]:
    """Say how the numbers came about."""
    why = {
        "final": "The weights at the end of each run count. A best epoch is chosen on the same images, which flatters.",
        "best": "The best weights of each run count, since all runs stop early.",
    }
    texts = [why[found.value], f"± beside a value is the standard deviation over the {found.repeats}."]
    if not found.is_claim:
        return [*texts, f"No intervals: they need at least two {found.repeats} of a setting that the baseline has too."]
    texts += [
        f"The differences are paired: equal {found.repeats} are compared with each other. {verdict.scope(found)}.",
        "The width comes from the larger of a setting's own variance and the mean of all, by Dunnett's method.",
        f"'better' is the share of runs in which the setting would beat the baseline at the same {found.repeats[:-1]}.",
    ]
    if found.folds:
        texts.append(
            f"Two trainings share most of their images. So the variance of a mean of n folds is s² (1/n + "
            f"1/{found.folds - 1}) with n - 1 degrees of freedom, not s²/n (Nadeau and Bengio, 2003)."
        )
    elif not found.images:
        texts.append(
            "Not all runs have kept their answers (answers.npz), so the luck of the images is not in the intervals."
        )
    if any(row.may_be_best for row in found.rows):
        texts.append("What may be the best comes from Hsu's comparison with the best, at 95 %.")
    if correlations := [row.correlation for row in found.compared if math.isfinite(row.correlation)]:
        low, high = min(correlations), max(correlations)
        texts.append(
            f"Equal {found.repeats} correlate with {low:.2f} to {high:.2f}: the nearer to 1, the more pairing helps."
        )
    return texts


def repeat_command(row: Row) -> str:
    """Return the command that runs a setting again with all its seeds and folds."""
    first = row.setting.runs[0]
    words = [
        word
        for word in first.words
        if override_key(word) not in ("dir", "early_stop.prune") and not first.is_repeat_key(override_key(word))
    ]
    if first.folds:
        words = [*(word for word in words if override_key(word) != FOLDS), f"folds={first.folds}"]
    seeds = list(dict.fromkeys(run.seed for run in row.setting.runs))
    flag = ["-m"] if len(row.setting.runs) > 1 else []
    return " ".join([command("train"), *flag, *map(quote, words), f"seed={','.join(_by_number(seeds))}"])


def _by_number(seeds: Sequence[str]) -> list[str]:
    return sorted(seeds, key=lambda seed: (not seed.isdigit(), int(seed) if seed.isdigit() else 0, seed))
