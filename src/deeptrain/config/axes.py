"""What a search varies: key=log(a,b), interval(a,b), range(a,b), or several values, by Hydra's grammar."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from deeptrain.config.override import override_key, override_value
from deeptrain.errors import UsageError
from deeptrain.runtime.paths import quote

LOG = re.compile(r"(?<![\w])log\(([^()]*)\)")
OTHER_NAMES = {"uniform": "interval", "loguniform": "log", "log_uniform": "log", "randint": "range", "int": "range"}
CALL = re.compile(r"(\w+)\(")
KNOWN = ("log", "interval", "range", "choice", "tag", "sort", "shuffle", "glob", "str", "float", "bool", "json_str")


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both included. whole: whole numbers only. log: equal steps are equal factors."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        kind = "range" if self.whole and not self.log else "log" if self.log else "interval"
        return f"{kind}({self.low:g},{self.high + (kind == 'range'):g})"


@dataclass(frozen=True)
class Choice:
    """One of several values, as they are typed."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)

    def between(self) -> Interval | None:
        """Return the range that was perhaps meant by two numbers, of which one is a fraction."""
        try:
            low, high = sorted(map(float, self.values))
        except ValueError:
            return None
        is_range = low < high and not (low.is_integer() and high.is_integer())
        return Interval(low, high, log=low > 0 and high >= 10 * low) if is_range else None


Axis = Interval | Choice


def split_axes(words: list[str]) -> tuple[list[str], dict[str, Axis]]:
    """Separate the words that name a range or several values; UsageError says how to write one that is wrong."""
    plain, axes, messages = [], {}, []
    for word in words:
        try:
            axis = read_axis(word)
        except ValueError as error:
            messages.append(f"{word}: {error}")
            continue
        if axis is None:
            plain.append(word)
        elif override_key(word) in axes:
            messages.append(f"{word}: {override_key(word)} has a range already; leave one of them out")
        else:
            axes[override_key(word)] = axis
    if messages:
        raise UsageError(messages)
    return plain, axes


def read_axis(word: str) -> Axis | None:
    """Return what a word varies over; None if it has one value. ValueError says what is wrong."""
    value = override_value(word)
    if (call := CALL.match(value)) and call[1] not in KNOWN:
        meant = OTHER_NAMES.get(call[1], "log")
        raise ValueError(f"{call[1]}() is unknown; write '{override_key(word)}={meant}(low,high)'")
    parsed = _parse(word.partition("=")[0] + "=" + LOG.sub(r"tag(log,interval(\1))", value))
    if parsed is None or not parsed.is_sweep_override():
        return None  # what is wrong with a single value is said when the run is composed
    sweep: Any = parsed.value()
    if isinstance(sweep, IntervalSweep):
        return _interval(word, sweep.start, sweep.end, set(map(str, sweep.tags)))
    if isinstance(sweep, RangeSweep) and sweep.step == 1 and _is_whole(sweep.start, sweep.stop):
        start, stop = float(sweep.start or 0), float(sweep.stop or 0)
        if stop <= start:
            raise ValueError(
                f"has no number; the lower end comes first, as in {quote(override_key(word) + '=range(2,9)')}"
            )
        return _interval(word, start, stop - 1, {*map(str, sweep.tags), "int"})
    if isinstance(sweep, ChoiceSweep | RangeSweep):
        return _choice(word, parsed)
    raise ValueError(f"is no range; write '{override_key(word)}=log(low,high)', interval(low,high) or several values")


def _parse(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError):
        if CALL.match(override_value(word)):
            raise ValueError(f"write '{override_key(word)}=log(low,high)', with two numbers") from None
        return None


def _interval(word: str, low: Any, high: Any, tags: set[str]) -> Interval:
    key = override_key(word)
    if not all(isinstance(end, int | float) and end == end and abs(end) != float("inf") for end in (low, high)):
        raise ValueError(f"the ends of a range are numbers; write '{key}=log(1e-4,1e-1)'")
    if unknown := tags - {"log", "int"}:
        raise ValueError(f"the tag {min(unknown)} is unknown; write tag(log,interval(low,high))")
    name = "log" if "log" in tags else "interval"
    if low > high:
        raise ValueError(f"the lower end comes first; write {quote(f'{key}={name}({high:g},{low:g})')}")
    if low == high:
        raise ValueError(f"is a single value; write {key}={low:g}")
    if "log" in tags and low <= 0:
        start = f"{high / 1000:g}" if high > 0 else "1e-3"
        end = f"{high:g}" if high > 0 else "1"
        log, even = quote(f"{key}=log({start},{end})"), quote(f"{key}=interval({low:g},{high:g})")
        raise ValueError(f"a log range starts above 0; write {log}, or {even}")
    return Interval(low, high, "log" in tags, "int" in tags and _is_whole(low, high))


def _choice(word: str, parsed: Override) -> Choice:
    try:
        values = list(parsed.sweep_string_iterator())
    except (HydraException, ValueError):
        raise ValueError("a range stands alone; leave out the other values") from None
    if len(set(values)) < 2 or len(set(values)) < len(values):
        raise ValueError(f"must be different values, such as {override_key(word)}=a,b")
    return Choice(tuple(map(str, values)))


def _is_whole(*ends: Any) -> bool:
    return all(float(end).is_integer() for end in ends)


def as_whole(axis: Interval, is_allowed: Callable[[float], bool]) -> Interval:
    """Return the interval of whole numbers if the setting takes those and no others between the ends."""
    if axis.whole or not _is_whole(axis.low, axis.high) or axis.high - axis.low < 1:
        return axis
    if is_allowed(axis.low + 0.5) and is_allowed(axis.high - 0.5):
        return axis
    return Interval(axis.low, axis.high, axis.log, whole=True) if is_allowed(int(axis.low)) else axis
