"""How far a network's probabilities can be believed: numbers with intervals, as trained and at a temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from deeptrain.metrics.calibration import calibration_error, equal_mass_bins, equal_width_bins, risk_coverage_area
from deeptrain.metrics.per_class import macro_f1_of
from deeptrain.metrics.probabilities import brier_scores, class_probabilities, fit_temperature, nll, ranked_first
from deeptrain.metrics.resampling import Estimate, estimate, mean_of
from deeptrain.report import formatting
from deeptrain.run.calibration import WITHOUT_PROBABILITIES, Calibration

BINS = 15
NAMES = {  # of a row, and whether it is written in percent
    "nll": ("NLL", False),
    "brier": ("Brier", False),
    "ece": (f"ECE, {BINS} bins of equal width", True),
    "ece_equal_mass": (f"ECE, {BINS} bins of equal mass", True),
    "aurc": ("AURC", True),
}


@dataclass
class Scores:
    """Estimates of one network on one split. `by_temperature` has those of its probabilities at each temperature."""

    macro_f1: Estimate
    by_temperature: Mapping[float, Mapping[str, Estimate]]
    loss: str
    calibration: Calibration | None = None

    def state_dict(self) -> dict:
        """Return plain values for evaluation.json."""
        tables = {f"{temperature:g}": table for temperature, table in self.by_temperature.items()}
        probabilities = {at: {name: asdict(one) for name, one in table.items()} for at, table in tables.items()}
        return {"macro_f1": asdict(self.macro_f1), "by_temperature": probabilities}


def measure(logits: Tensor, labels: Tensor, loss: str, calibration: Calibration | None = None) -> Scores:
    """Measure logits (N, K) against class ids (N,). A loss without probabilities has some at a temperature only."""
    predicted = logits.argmax(1).numpy()
    statistics = {"macro_f1": macro_f1_of(predicted, labels.numpy(), logits.shape[1])}
    temperatures = [] if loss in WITHOUT_PROBABILITIES else [1.0]
    temperatures += [calibration.temperature] if calibration else []
    for temperature in temperatures:
        probabilities = class_probabilities(logits, loss, temperature)
        confidence = ranked_first(logits, probabilities)[1].numpy()
        right = predicted == labels.numpy()
        found = {
            "nll": mean_of(nll(logits, labels, loss, temperature).numpy()),
            "brier": mean_of(brier_scores(probabilities, labels).numpy()),
            "ece": calibration_error(confidence, right, equal_width_bins(confidence, BINS)),
            "ece_equal_mass": calibration_error(confidence, right, equal_mass_bins(confidence, BINS)),
            "aurc": risk_coverage_area(confidence, right),
        }
        statistics |= {f"{name} {temperature}": statistic for name, statistic in found.items()}
    estimates = estimate(statistics, len(labels))
    tables = {
        temperature: {name: _not_negative(estimates[f"{name} {temperature}"]) for name in NAMES}
        for temperature in temperatures
    }
    return Scores(estimates["macro_f1"], tables, loss, calibration)


def _not_negative(found: Estimate) -> Estimate:
    return Estimate(found.value, max(0.0, found.low), max(0.0, found.high))


def calibrate(logits: Tensor, labels: Tensor, loss: str, weights: str) -> Calibration:
    """Fit the temperature of a network's logits (N, K) on val; ValueError if these images do not decide on one."""
    temperature = fit_temperature(logits, labels, loss)
    before, after = (float(nll(logits, labels, loss, at).mean()) for at in (1.0, temperature))
    return Calibration(temperature, len(labels), before, after, weights)


def lines(scores: Scores) -> list[str]:
    """Compose a table: a row a number, a column a temperature."""
    f1 = scores.macro_f1
    percent = formatting.percent
    head = [f"macro F1 {percent(f1.value)} (95 % interval {percent(f1.low)} to {percent(f1.high)})"]
    if not scores.by_temperature:
        return head
    titles = [title(temperature) for temperature in scores.by_temperature]
    width = max(len(name) for name, _ in NAMES.values())
    columns = [[_cell(table[key], as_percent) for key, (_, as_percent) in NAMES.items()]
               for table in scores.by_temperature.values()]  # fmt: skip
    wide = max(len(cell) for column in columns for cell in column)
    rows = [f"{'probabilities':<{width}}  " + "  ".join(f"{title:<{wide}}" for title in titles).rstrip()]
    for number, (name, _) in enumerate(NAMES.values()):
        cells = "  ".join(f"{column[number]:<{wide}}" for column in columns).rstrip()
        rows.append(f"{name:<{width}}  {cells}")
    return [*head, *([_source(scores.calibration)] if scores.calibration else []), "", *rows]


def title(temperature: float) -> str:
    """Name the probabilities at a temperature."""
    return "as trained" if temperature == 1 else f"at temperature {temperature:.3g}"


def _source(calibration: Calibration) -> str:
    return f"temperature {calibration.temperature:.3g}, {calibration.source}"


def _cell(one: Estimate, as_percent: bool) -> str:
    write = formatting.metric_format(as_percent)
    return f"{write(one.value)} ({write(one.low)} to {write(one.high)})"


def check_finite(logits: Tensor, names: Sequence[str]) -> list[str]:
    """Return a line if the answers to some images are not finite: then nothing can be said of probabilities."""
    bad = (~logits.isfinite().all(1)).nonzero()[:, 0].tolist()
    more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
    return [f"the answer to {names[bad[0]]}{more} is not finite, so nothing is said of probabilities"] if bad else []
