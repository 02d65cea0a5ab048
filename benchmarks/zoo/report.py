"""What the zoo has shown: shares with their intervals, and the failures by name."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.patients import MILD, Patient
from zoo.rivals import TOOLS, Alarm

REGAINED = 0.8  # of what was lost
MANY = 100  # alarms


@dataclass
class Result:
    """A diagnosed set-up. patient: None for a healthy one. found: as diagnosis.json has it; after: as `follow` returns.

    twin, ill: accuracies of the healthy twin and of the patient as typed. heard: the verdicts of other tools.
    """

    patient: Patient | None
    found: Mapping[str, Any]
    after: Mapping[str, Any] = field(default_factory=dict)
    twin: float = math.nan
    ill: float = math.nan
    heard: Mapping[str, list[Alarm]] = field(default_factory=dict)

    @property
    def told(self) -> list[str]:
        """Return what a reader is told: a fault, or up to two pieces of advice."""
        kinds = [[v["name"] for v in self.found["verdicts"] if v["kind"] == kind] for kind in ("fault", "advice")]
        return kinds[0][:1] or kinds[1][:2]

    @property
    def is_fault(self) -> bool:
        return any(verdict["kind"] == "fault" for verdict in self.found["verdicts"])

    @property
    def is_harmed(self) -> bool:
        return self.twin - self.ill >= MILD

    @property
    def is_right(self) -> bool:
        """Tell whether the first verdict is accepted."""
        return self._accepts([(name,) for name in self.told[:1]])

    def is_named_by(self, tool: str, most: int) -> bool:
        """Tell whether one of the first alarms of another tool means an accepted verdict."""
        return self._accepts([means for _, means in self.heard[tool][:most]])

    def _accepts(self, told: Sequence[Sequence[str]]) -> bool:
        assert self.patient is not None
        if not told:
            return self.patient.mild and not self.is_harmed
        return any(name in self.patient.accepted for means in told for name in means)

    @property
    def regained(self) -> float:
        """Return the part of what was lost that the printed command brings back."""
        return (max(self.after["accuracy"], self.ill) - self.ill) / (self.twin - self.ill)

    @property
    def counts_as_mended(self) -> bool:
        return self.patient is not None and self.patient.mended and self.is_harmed

    def __str__(self) -> str:
        told = f"{', '.join(self.told) or '-'} {self.found['confidence']}".strip()
        if self.patient is None:
            return f"{'FAULT' if self.is_fault else 'quiet':<6} {self.found['words']}: {told}"
        regained = f", regained {self.regained:.0%}" if self.is_harmed else ""
        words = (
            f"{self.patient.number:>2} {self.patient.name}: {told}; twin {self.twin:.3f}, ill {self.ill:.3f}{regained}"
        )
        return f"{'right' if self.is_right else 'WRONG':<6} {words}"


def interval(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, count / total
    middle, half = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def share(flags: Iterable[bool]) -> str:
    known = list(flags)
    low, high = interval(sum(known), len(known))
    return f"{sum(known)} of {len(known)} ({low:.0%} to {high:.0%})"


def of_healthy(results: Sequence[Result]) -> list[str]:
    """Return the lines on healthy set-ups: faults of ours, and set-ups in which a tool speaks up."""
    lines = [f"false faults: {share(result.is_fault for result in results)}"]
    lines += [f"  {result}" for result in results if result.is_fault]
    lines.append(f"advice: {share(bool(result.told) and not result.is_fault for result in results)}")
    return lines + [f"{tool} speaks up: {share(bool(r.heard[tool]) for r in results)}" for tool in TOOLS]


def of_patients(results: Sequence[Result]) -> list[str]:
    """Return the lines on patients, for each half and each class of confidence."""
    lines = []
    for half, kinds in (("open", {True}), ("locked", {False}), ("all", {True, False})):
        chosen = [result for result in results if result.patient and result.patient.is_open in kinds]
        if not chosen:
            continue
        lines.append(f"{half}: named {share(result.is_right for result in chosen)}")
        lines.append(f"{half}: silent {share(not result.told for result in chosen)}")
        for tool in TOOLS:
            first, any_place = ([result.is_named_by(tool, most) for result in chosen] for most in (1, MANY))
            lines.append(f"{half}: {tool} names {share(first)}, by any alarm {share(any_place)}")
        mended = [result for result in chosen if result.counts_as_mended]
        lines.append(f"{half}: the command regains 80 % {share(result.regained >= REGAINED for result in mended)}")
        for word in ("certain", "likely", "possible"):
            of_word = [result for result in chosen if result.found["confidence"] == word]
            lines.append(f"{half}: {word}, right {share(result.is_right for result in of_word)}")
    return lines
