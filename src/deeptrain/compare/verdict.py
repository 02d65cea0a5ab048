"""What a comparison shows, in plain sentences: what is better, what may be, what is excluded, how sure all of it is."""

import math
from collections.abc import Sequence

from deeptrain.compare.comparison import Comparison, Row
from deeptrain.report import formatting

MOST = 4  # settings that a sentence names
REPEAT = "For intervals, run every setting with the same five seeds: seed=0,1,2,3,4 with -m."


def value_text(found: Comparison, value: float) -> str:
    """Write a value of the metric."""
    if math.isnan(value):
        return "-"
    return formatting.percent(value) if found.scale > 1 else formatting.format_loss(value)


def amount(found: Comparison, difference: float, *, sign: bool = False) -> str:
    """Write a difference as a number: in points for a share, else like the metric."""
    number = found.scale * difference
    digits = 2 if found.scale > 1 else 4
    return f"{number:{'+' if sign else ''}.{digits}f}"


def unit(found: Comparison) -> str:
    return " points" if found.scale > 1 else ""


def headline(found: Comparison) -> str:
    """Say in one sentence what the comparison shows."""
    base = found.baseline
    if base is None:
        return f"No run has come to its end with {found.monitor}, so there is nothing to compare yet."
    if not found.compared:
        return _alone(found, base)
    if not found.is_claim:
        return "One run a setting: the table says what differs, but nothing about which is better."
    better, worse = clear(found, 1), clear(found, -1)
    if better:
        first = better[0]
        others = (
            f" {_count(len(better) - 1, 'other setting')} {_is(len(better) - 1)} better too." if len(better) > 1 else ""
        )
        return f"{first.label} is better than {base.label}, {_by(found, first)}.{others}"
    if len(worse) == len(found.compared):
        return f"No setting is better than {base.label}: {_all(len(worse))} worse."
    if worse:
        rest = len(found.compared) - len(worse)
        split = f"{_count(len(worse), 'setting')} {_is(len(worse))} worse, {rest} cannot be told apart from it"
        return f"No setting is shown to be better than {base.label}: {split}."
    return f"No difference from {base.label} is shown. If there is one, it is smaller than {_largest(found)}."


def _alone(found: Comparison, base: Row) -> str:
    """Say what one setting has reached: there is nothing to compare it with."""
    if len(found.rows) > 1:
        return (
            f"No setting has a {found.repeats[:-1]} in common with {base.label}, so nothing can be compared in pairs."
        )
    seeds = f"{len(base.values)} {found.repeats}" if len(base.values) > 1 else f"one {found.repeats[:-1]}"
    if base.over_folds and not math.isnan(base.over_folds.half):
        low, high = fold_ends(found, base)
        return (
            f"One setting, {found.monitor} {value_text(found, base.mean)} over {seeds}. With other images of the same "
            f"kind it is {low} to {high} (95 % interval)."
        )
    spread = f" ± {amount(found, base.spread)}" if len(base.values) > 1 else ""
    reached = f"{found.monitor} {value_text(found, base.mean)}{spread} over {seeds}"
    return f"One setting, {reached}. A comparison needs two, with the same seeds."


def fold_ends(found: Comparison, row: Row) -> tuple[str, str]:
    """Write the ends of the interval that the folds give a setting's value; a share stays in [0, 1]."""
    assert row.over_folds
    low, high = row.over_folds.low, row.over_folds.high
    if found.scale > 1:
        low, high = max(0.0, low), min(1.0, high)
    return value_text(found, low), value_text(found, high)


def sentences(found: Comparison) -> list[str]:
    """Say what else the intervals show, a fact each."""
    if not found.is_claim or found.baseline is None:
        return list(filter(None, [REPEAT if found.compared else "", _collapsed(found)]))
    texts = [*_clear(found), _unclear(found), _best_set(found), *_smallest(found), _collapsed(found), _single(found)]
    return list(filter(None, texts))


def clear(found: Comparison, sign: int) -> list[Row]:
    """Return the settings that are better (1) or worse (-1) than the baseline beyond chance, the clearest first."""
    rows = [row for row in found.compared if row.gain and row.gain.is_clear and row.gain.mean * sign > 0]
    return sorted(rows, key=lambda row: -sign * (row.gain.mean if row.gain else 0))


def unclear(found: Comparison) -> list[Row]:
    return [row for row in found.compared if row.at_90 and row.gain and not row.gain.is_clear]


def scope(found: Comparison) -> str:
    """Say what the intervals hold for."""
    k, level = sum(row.at_90 is not None for row in found.compared), f"{100 * found.level:.3g} %"
    every = f"all {k} intervals hold at once" if k > 1 else "the interval holds"
    images = f"other seeds and other images ({found.images:,} were measured)" if found.images else "other seeds"
    limits = "" if found.images else ", on these validation images"
    if found.folds:
        images, limits = "other seeds and other images of the same kind", f", by the spread over {found.folds} folds"
    return f"{level} intervals: {every}, for {images}{limits}"


def _by(found: Comparison, row: Row) -> str:
    assert row.gain
    gain = row.gain
    ends = sorted((abs(gain.low), abs(gain.high)))
    low, high = (amount(found, end) for end in ends)
    return f"by {amount(found, abs(gain.mean))}{unit(found)} ({low} to {high}) in {found.monitor}"


def _clear(found: Comparison) -> list[str]:
    better, worse = clear(found, 1), clear(found, -1)
    texts = [f"{row.label} is better too, {_by(found, row)}." for row in better[1:MOST]]
    return texts + [f"{row.label} is worse, {_by(found, row)}." for row in worse[:MOST]]


def _unclear(found: Comparison) -> str:
    rows = unclear(found)
    if not rows or not (clear(found, 1) or clear(found, -1)):
        return ""
    is_one = len(rows) == 1
    return (
        f"No difference from {found.baseline.label if found.baseline else ''} is shown for {names(rows)}. "
        f"If there is one, it is smaller than {_largest(found)}{'' if is_one else ' for each'}."
    )


def _largest(found: Comparison) -> str:
    largest = max((row.at_90.largest for row in unclear(found) if row.at_90), default=math.nan)
    return f"{amount(found, largest)}{unit(found)}"


def _best_set(found: Comparison) -> str:
    rows = [row for row in found.rows if row.may_be_best]
    if not rows:
        return ""
    if len(rows) == 1:
        return f"The best setting of all is {rows[0].label}."
    if len(rows) == len(found.rows):
        return "Any of the settings may be the best one."
    return f"The best setting is one of these {len(rows)}: {names(rows, len(rows))}."


def _smallest(found: Comparison) -> list[str]:
    """Say of smallest= which settings cannot differ by so much, and how many seeds the others need."""
    if not found.smallest:
        return []
    limit = found.smallest / found.scale
    rows = [row for row in unclear(found) if row.at_90]
    excluded = [row for row in rows if row.at_90 and row.at_90.largest < limit]
    open_rows = [row for row in rows if row not in excluded]
    wanted = f"{found.smallest:g}{' point' if found.smallest == 1 and unit(found) else unit(found)}"
    texts = [f"A difference of {wanted} or more is excluded for {names(excluded)}."] if excluded else []
    if open_rows:
        texts.append(f"A difference of {wanted} is still possible for {names(open_rows)}. {_seeds(found, wanted)}")
    return texts


def _seeds(found: Comparison, wanted: str) -> str:
    low, high = found.seeds or (None, None)
    if low is None:
        more = "images" if found.folds else "validation images"
        return f"More seeds do not show {wanted}: that takes more {more}."
    low, high = (each if each is None or not found.folds else -(-each // found.folds) for each in (low, high))
    upper = f"over {200 // (found.folds or 1)}" if high is None else str(high)
    each = f" of {found.folds} folds" if found.folds else ""
    one_or_more = f"{low if str(low) == upper else f'{low} to {upper}'}"
    return f"To see {wanted}, {one_or_more} seed{'' if one_or_more == '1' else 's'}{each} a setting are needed."


def _collapsed(found: Comparison) -> str:
    rows = [row for row in [*found.rows, *found.left_out] if row.collapsed]
    if not rows:
        return ""
    parts = [f"{len(row.collapsed)} of {len(row.setting.runs)} runs of {row.label}" for row in rows[:MOST]]
    return f"Left out, because they learned nothing: {', '.join(parts)}. This is a result too."


def _single(found: Comparison) -> str:
    rows = [row for row in found.compared if row.at_90 is None]
    what = "have" if len(rows) > 1 else "has"
    return (
        f"{names(rows)} {what} only one {found.repeats[:-1]} in common with the baseline, so nothing is claimed."
        if rows
        else ""
    )


def names(rows: Sequence[Row], most: int = MOST) -> str:
    labels = [row.label for row in rows]
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _all(number: int) -> str:
    return "the other one is" if number == 1 else f"all {number} are"
