"""After a fault its remedy is tried in the run itself, and others on top of it: a pure function of trials."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deeptrain.analysis.diagnosis import procedure
from deeptrain.analysis.diagnosis.judgements import Reading
from deeptrain.analysis.diagnosis.mend import ROOM, Mended, mend
from deeptrain.analysis.diagnosis.outcome import Diagnosis
from deeptrain.analysis.diagnosis.trial import Trial, Trials
from deeptrain.analysis.verdicts import Verdict
from deeptrain.errors import UsageError

DIES = Verdict("signal_dies", "fault", "likely", "0.4 at the input", "model.initialization=kaiming")
LINE = np.concatenate([np.zeros(100), np.ones(900)])


class Subject:
    rate, decay = 0.01, 0.0

    def named(self, change):
        return change


class Made:
    """Trials of which the share that is right is known by their change; an unknown change does not go."""

    subject, beside = Subject(), Trials.beside

    def __init__(self, right: dict[str, int], steps: int = 1000):
        self.right, self.steps, self.asked = right, steps, []

    def whole(self, rate, decay, change=""):
        self.asked.append(change)
        if change not in self.right:
            raise UsageError([f"{change}: no"])
        right = (np.arange(1000) >= 1000 - self.right[change]).astype(float)
        return Trial(rate, decay, change, self.steps, right, np.full(40, 0.5), 0.9)


def told(right: dict[str, int], candidates: tuple[str, ...] = (), fault: Verdict = DIES, steps: int = 1000):
    made = Made(right, steps)
    mended = mend(Reading([fault], ["the rate"]), made, candidates, LINE, 0.1, lambda trial: "epochs=14")  # type: ignore[arg-type]
    assert [trial.change for trial in mended.runs] == list(
        dict.fromkeys(change for change in made.asked if change in right)
    )
    return mended.reading, made


def test_a_remedy_that_mends_the_run_is_certain_and_ends_it():
    reading, made = told({"": 100, DIES.override: 895}, ("model.norm=batch",))
    (verdict,) = reading.verdicts
    assert (verdict.name, verdict.confidence, verdict.override) == ("signal_dies", "certain", DIES.override)
    assert "89.50% on val, else 10.00%" in verdict.evidence and made.asked == ["", DIES.override]


def test_while_a_straight_line_is_better_others_are_added():
    norm, both = "model.norm=batch", f"{DIES.override} model.norm=batch"
    wide = f"{both} model.hidden=[256,256]"
    reading, _ = told(
        {"": 100, DIES.override: 400, both: 405, f"{DIES.override} model.hidden=[256,256]": 900},
        (norm, "model.hidden=[256,256]"),
    )
    assert [(v.name, v.kind, v.override) for v in reading.verdicts] == [
        ("signal_dies", "fault", DIES.override),
        ("remedied", "advice", "model.hidden=[256,256]"),
    ]
    assert wide not in reading.excluded and any(norm in cause for cause in reading.excluded)


def test_a_remedy_that_fails_in_the_run_gives_way_to_one_that_helps():
    rate = Verdict("rate_too_low", "fault", "possible", "it knows 10%", "optimizer.lr=3000")
    reading, _ = told({"": 100, rate.override: 100, "clip_norm=null": 900}, ("clip_norm=null",), rate)
    (verdict,) = reading.verdicts
    assert (verdict.name, verdict.kind, verdict.override) == ("clipped", "fault", "clip_norm=null")
    assert "optimizer.lr=3000 (tried in the run: +0.0 points on val)" in reading.excluded


def test_a_run_of_few_steps_is_made_longer():
    reading, _ = told({"": 100, DIES.override: 400, f"{DIES.override} epochs=14": 900}, steps=100)
    assert [verdict.name for verdict in reading.verdicts] == ["signal_dies", "train_longer"]


@pytest.mark.parametrize(("own", "kind", "confidence"), [(700, "remark", ""), (100, "fault", "possible")])
def test_a_fault_that_does_no_harm_is_a_remark(own, kind, confidence):
    reading, _ = told({"": own, DIES.override: own})
    assert [(verdict.kind, verdict.confidence) for verdict in reading.verdicts] == [(kind, confidence)]


def test_no_more_runs_are_made_than_there_is_time_for():
    candidates = [f"model.width={width}" for width in range(20)]
    _, made = told({"": 100} | dict.fromkeys([DIES.override, *candidates], 100), tuple(candidates))
    assert len(made.asked) == ROOM


@pytest.mark.parametrize(
    ("own", "after", "kind"),
    [(100, 850, "fault"), (100, 400, "remark"), (600, 890, "remark")],
)
def test_a_regularizer_is_a_fault_only_where_it_keeps_a_run_from_learning(own, after, kind):
    """In a short run all networks learn faster without."""
    held = Verdict("regularized", "fault", "likely", "loss 2.3", "data.augment=false")
    reading, _ = told({"": own, held.override: after}, fault=held)
    assert [verdict.kind for verdict in reading.verdicts] == [kind]


@pytest.mark.parametrize("kind", ["fault", "remark"])
def test_the_page_shows_runs_with_remedies_where_a_step_has_failed(monkeypatch, kind):
    """A fault whose remedy adds nothing to a run that learns is a remark: its step has passed."""
    runs = [Trial(0.1, 0.0, change, 10, LINE, LINE, 0.9) for change in ("", "model.norm=batch")]
    mended = Mended(Reading([replace(DIES, kind=kind)]), runs)
    monkeypatch.setattr(procedure, "mend", lambda *arguments: mended)
    subject = SimpleNamespace(is_rate_open=False, remedies=lambda: [], named=str)
    taken = object.__new__(procedure.Procedure)
    taken.subject, taken.ledger, taken.report, taken.diagnosis = subject, None, None, Diagnosis(subject)  # type: ignore[assignment]
    known = {"lengths": SimpleNamespace(last=7, planned=10), "facts": SimpleNamespace(guessed=0.1, total_steps=10)}
    vars(taken).update(known, controls=SimpleNamespace(linear=LINE, linear_accuracy=0.9))
    assert taken._mended(Reading([DIES])) is mended.reading
    assert ("mended" in taken.diagnosis.pictures) == (kind == "fault")
