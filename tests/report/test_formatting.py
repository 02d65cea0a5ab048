"""Numbers for people: at most four format_loss, in columns of a known width."""

import math

import pytest

from deeptrain.metrics.metric import METRICS
from deeptrain.report.formatting import (
    count,
    duration,
    format_loss,
    format_lr,
    format_metric,
    format_points,
    percent,
    shorten,
    speed,
)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (format_loss, 2.30258, "2.303"),
        (format_loss, 0.41234, "0.4123"),
        (format_loss, 0.0412, "0.0412"),
        (format_loss, 12.3456, "12.35"),
        (format_loss, 123.456, "123.5"),
        (format_loss, 0.000123, "1.2e-04"),
        (format_loss, 123456.0, "1.2e+05"),
        (format_loss, 0, "0.0000"),
        (format_loss, math.nan, "nan"),
        (format_lr, 0.1, "1.00e-1"),
        (format_lr, 0.00257, "2.57e-3"),
        (format_lr, 0.00044963, "4.50e-4"),
        (format_lr, 8.9e-12, "8.9e-12"),
        (format_lr, 20.0, "2.00e1"),
        (format_lr, 0.0, "0"),
        (percent, 0.98421, "98.42%"),
        (percent, 1.0, "100%"),
        (percent, 0.99999, "100%"),
        (format_points, 0.0123, "+1.23"),
        (format_points, -0.1234, "-12.3"),
        (speed, 8.314, "8.31"),
        (speed, 12340.4, "12,340"),
        (speed, 123456, "123k"),
        (count, 999_999, "999,999"),
        (count, 11_173_962, "11.17M"),
        (count, 138_357_544, "138M"),
        (count, 999_600_000, "1.00G"),
        (duration, 0, "0s"),
        (duration, 59.6, "1m00s"),
        (duration, 200, "3m20s"),
        (duration, 3840, "1h04m"),
        (duration, 183600, "2d03h"),
        (duration, math.inf, "?"),
    ],
)
def test_wording(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize("exponent", range(-12, 9))
def test_widths_hold_over_all_sizes(exponent):
    value = 9.9996 * 10.0**exponent
    assert len(format_loss(value)) <= 7 and len(format_lr(value)) <= 7
    assert exponent > 7 or len(speed(value)) <= 8
    assert sum(letter.isdigit() for letter in format_loss(value).split("e")[0].lstrip("0.")) <= 4


def test_a_metric_is_written_in_its_unit_by_name_or_tag():
    assert format_metric("accuracy/val", 0.98421, METRICS) == format_metric("accuracy", 0.98421, METRICS) == "98.42%"
    assert format_metric("loss/val", 0.98421, METRICS) == "0.9842"
    assert format_metric("of my own/val", 0.98421, METRICS) == "0.9842"


@pytest.mark.parametrize(
    ("text", "length", "short"),
    [("abc", 3, "abc"), ("abcdef", 5, "ab…ef"), ("abcdef", 4, "ab…f"), ("abcdef", 3, "a…f"), ("abcdef", 1, "a")],
)
def test_names_are_cut_in_their_middle(text, length, short):
    assert shorten(text, lambda candidate: len(candidate) <= length) == short
