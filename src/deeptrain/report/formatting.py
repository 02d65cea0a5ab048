"""Numbers as people read them: at most four digits, percent, points, speeds, spans of time."""

import math
from collections.abc import Callable, Mapping

from deeptrain.metrics.metric import Metric


def format_loss(value: float) -> str:
    """Write a loss, or a number like it, in at most seven columns: 0.4123, 12.35, 1.2e-05."""
    size = abs(value)
    if not math.isfinite(value) or size >= 9999.5 or 0 < size < 0.00095:
        return f"{value:.1e}" if math.isfinite(value) else f"{value:g}"
    decimals = sum(size < limit for limit in (0.99995, 9.9995, 99.995, 999.95))
    return f"{value:.{decimals}f}"


def format_lr(value: float) -> str:
    """Write a learning rate in at most seven columns, always in this form: 1.00e-1, 2.57e-3, 8.9e-12, or 0."""
    if not value:
        return "0"
    texts = (f"{value:.{digits}e}".partition("e") for digits in (2, 1, 0))
    short = [f"{number}e{int(exponent)}" for number, _, exponent in texts]
    return next((text for text in short if len(text) <= 7), short[-1])


def percent(fraction: float) -> str:
    """Write an accuracy in [0, 1] as 98.42%."""
    return f"{100 * fraction:.2f}%" if not fraction >= 0.99995 else f"{100 * fraction:.0f}%"


def metric_format(as_percent: bool) -> Callable[[float], str]:
    """Return how a metric is written: as a percentage, or like a loss."""
    return percent if as_percent else format_loss


def format_metric(tag: str, value: float, metrics: Mapping[str, Metric]) -> str:
    """Write a metric by its name or tag, such as accuracy/val."""
    metric = metrics.get(tag.partition("/")[0])
    return metric_format(metric is not None and metric.as_percent)(value)


def format_points(difference: float) -> str:
    """Write the difference of two accuracies in percentage points: +1.23, -12.3."""
    value = 100 * difference
    return f"{value:+.2f}" if abs(value) < 9.995 else f"{value:+.1f}"


def speed(per_second: float) -> str:
    """Write images a second in at most six columns: 8.31, 12,340, 123k."""
    if per_second < 99.95:
        return f"{per_second:.3g}"
    return f"{per_second:,.0f}" if per_second < 99_999.5 else f"{per_second / 1000:,.0f}k"


def count(number: int) -> str:
    """Write a count in at most seven columns: 307,876, 11.17M, 1.50G."""
    if number < 1_000_000:
        return f"{number:,}"
    value, unit = (number / 1e6, "M") if number < 999.5e6 else (number / 1e9, "G")
    return f"{value:.{2 if value < 99.995 else 0}f}{unit}"


def duration(seconds: float) -> str:
    """Write a span of time by its two largest units: 45s, 3m20s, 1h04m, 2d03h."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Cut a text in its middle until it fits: names that share their beginning often differ at their end."""
    if fits(text):
        return text
    shorter = (f"{text[: count - count // 2]}…{text[-(count // 2) :]}" for count in range(len(text) - 1, 1, -1))
    return next(filter(fits, shorter), text[:1])
