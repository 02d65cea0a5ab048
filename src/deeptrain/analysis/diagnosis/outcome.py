"""What a diagnosis has found: its steps, its verdicts, what it has excluded, and what to type next."""

import json
import math
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.analysis.diagnosis.judgements import Reading
from deeptrain.analysis.diagnosis.subject import Subject, without
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.diagnosis_page import write_page
from deeptrain.runtime.files import write_atomically

KINDS, SURE = ("fault", "advice", "remark"), ("certain", "likely", "possible", "")
SHOWN = ("healthy", "better_settings", "overfitted")  # remarks, where there is no fault and no advice
NAMES = ("start", "memorise", "rate", "grid", "refine", "curves", "next")


@dataclass
class Step:
    """A step of the diagnosis: what was measured, in a line, and how it is read. status: passed, failed or left out."""

    number: int
    line: str
    measured: Any
    reading: Reading
    left_out: bool = False

    @property
    def name(self) -> str:
        return NAMES[self.number - 1]

    @property
    def status(self) -> str:
        return "failed" if self.reading.failed else "left out" if self.left_out else "passed"

    def __str__(self) -> str:
        return f"{self.number} {self.name:<9} {self.status:<8} {self.line}"


@dataclass
class Diagnosis:
    """The steps that were taken. A step after a failed one would only see its consequences.

    settings: the words of rate and decay that were chosen beside the run's own. Printed, it says all that matters.
    pictures: what the page draws, by name: rows or a table of numbers. cut: which part of a whole run its runs took.
    """

    subject: Subject
    steps: list[Step] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    pictures: dict[str, Any] = field(default_factory=dict)
    cut: str = ""

    @property
    def verdicts(self) -> list[Verdict]:
        """Return all verdicts: faults, then advice, then remarks; the surest first, else as they were found."""
        found = [verdict for step in self.steps for verdict in step.reading.verdicts]
        return sorted(found, key=lambda verdict: (KINDS.index(verdict.kind), SURE.index(verdict.confidence)))

    @property
    def excluded(self) -> list[str]:
        return list(dict.fromkeys(cause for step in self.steps for cause in step.reading.excluded))

    @property
    def failed(self) -> bool:
        return any(step.reading.failed for step in self.steps)

    @property
    def command(self) -> str:
        """Return what to type next: after a fault the diagnosis again with its remedy, "" if none is known.

        So it is with another start, for rate and decay were chosen for the one that was typed. Else it is the training;
        where nothing is to be changed with three seeds, which show what chance does. "" where no setting follows from
        an advice, such as to look at the labels.
        """
        changes = self._changes()
        starts = [verdict.override.split() for verdict in self.verdicts if verdict.name == "unusual_start"]
        if self.failed or any(words[0] in changes for words in starts):
            return self.subject.command("diagnose", changes) if changes else ""
        if not changes and any(verdict.kind == "advice" for verdict in self.verdicts):
            return ""
        if not changes and len(self.steps) == len(NAMES):
            return self.subject.command("seeds", [])
        return self.subject.command("train", changes)

    def _changes(self) -> list[str]:
        """Return the words of all remedies after a fault: each was tried on top of those before it.

        Without a fault, those of all advice that is certain or likely, else of the first that is possible.
        What step 5 chose goes with advice tested beside it. It also goes where step 5 has something to tell.
        """
        found = self.verdicts
        if self.failed:
            words: list[str] = []
            for verdict in (verdict for verdict in found if verdict.kind != "remark"):
                words = [*without(words, verdict.override.split()), *verdict.override.split()]
            return words
        advised = [verdict for verdict in found if verdict.kind == "advice" and verdict.override]
        advised = [v for v in advised if v.confidence in ("certain", "likely")] or advised[:1]
        is_told = advised or self.subject.is_rate_open or any(v.name == "better_settings" for v in found)
        settings = self.settings if is_told else []
        chosen = {word.partition("=")[0]: word for word in settings}
        told: dict[str, str] = {}
        for word in (word.strip("'") for verdict in advised for word in verdict.override.split()):
            told.setdefault(word.partition("=")[0], word)  # of the surest advice
        return list((chosen | told).values())

    @property
    def reading(self) -> list[str]:
        """Return the sentences that matter: at most one fault and two pieces of advice."""
        kinds = {kind: [v for v in self.verdicts if v.kind == kind] for kind in ("fault", "advice", "remark")}
        shown = kinds["fault"][:1] + kinds["advice"][:2]
        shown = shown or [verdict for verdict in kinds["remark"] if verdict.name in SHOWN]
        return [verdict.sentence for verdict in shown] or [f"nothing is wrong in {self._taken()}{self._cut()}"]

    def lines(self) -> list[str]:
        """Return the reading, what was excluded where something is wrong, and what to type next."""
        lines = [f"reading  {sentence}" for sentence in self.reading]
        if self.failed and self.excluded:
            lines.append(f"excluded  {', '.join(self.excluded)}")
        return [*lines, *([f"try  {self.command}"] if self.command else [])]

    def save(self, folder: Path | str) -> Path:
        """Write diagnosis.json and diagnosis.html, a page that needs nothing but itself; return its path."""
        folder, content = Path(folder), self.summary()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "diagnosis.json", json.dumps(content, indent=1).encode())
        return write_page(folder, content, self.subject.title)

    def _cut(self) -> str:
        if not self.cut:
            return ""
        return f"; its runs took {self.cut} steps, so the end of a whole run is not judged; the run reads it itself"

    def _taken(self) -> str:
        taken = [step.number for step in self.steps if not step.left_out]
        if len(taken) == 1:
            return f"step {taken[0]}"
        return f"steps 1 to {taken[-1]}" if len(taken) == taken[-1] else f"steps {', '.join(map(str, taken))}"

    def __str__(self) -> str:
        rows = [line.split("  ", 1) for line in self.lines()]
        return "\n".join([*map(str, self.steps), *(f"{label:<9} {words}" for label, words in rows)])

    __repr__ = __str__

    def summary(self) -> dict[str, Any]:
        """Return what diagnosis.json holds."""
        first = next((verdict for verdict in self.verdicts if verdict.kind != "remark"), None)
        return {
            "verdict": first.name if first else "healthy",
            "confidence": first.confidence if first else "",
            "evidence": first.evidence if first else "",
            "reading": self.reading,
            "excluded": self.excluded,
            "commands": [self.command] if self.command else [],
            "verdicts": [{**vars(verdict), "sentence": verdict.sentence} for verdict in self.verdicts],
            "steps": [_summary(step) for step in self.steps],
            **plain(self.pictures),
        }


def _summary(step: Step) -> dict[str, Any]:
    facts = {"number": step.number, "name": step.name, "status": step.status, "line": step.line}
    return {**facts, "measured": plain(step.measured)}


def plain(measured: Any) -> Any:
    """Return measurements as JSON has them: what is not finite becomes null."""
    if is_dataclass(measured) and not isinstance(measured, type):
        return {key: plain(value) for key, value in vars(measured).items()}
    if isinstance(measured, np.ndarray):
        measured = measured.tolist()
    if isinstance(measured, list | tuple):
        return [plain(value) for value in measured]
    if isinstance(measured, dict):
        return {key: plain(value) for key, value in measured.items()}
    return None if isinstance(measured, float) and not math.isfinite(measured) else measured
