"""In which order changes are tried on a sample, and which rate counts: attempts are known beforehand."""

import pytest

from deeptrain.analysis.diagnosis import memorise
from deeptrain.analysis.diagnosis.judge_memory import Attempt
from deeptrain.analysis.diagnosis.ledger import Ledger

REMEDIES = ["optimizer.momentum=0.9", "model.norm=batch", "clip_norm=null"]


class Subject:
    rate, is_rate_open, is_frozen = 0.01, False, False

    def remedies(self):
        return REMEDIES


@pytest.fixture
def tried(monkeypatch):
    """Return a function that memorises with some changes, and names those that were tried."""

    def run(cures, seen=(), run_rates=(), found=3000.0, for_run=1000.0):
        asked = []

        def attempt(subject, ledger, report, change=""):
            asked.append(change)
            share = 1.0 if change in cures else 0.1
            return Attempt(share, share, 0.1, 300, change)

        monkeypatch.setattr(memorise, "attempt", attempt)
        monkeypatch.setattr(memorise, "_measure_signal", lambda subject: None)
        search = lambda changes, images: found if images else for_run  # noqa: E731
        learns = lambda rate: 9.0 if rate in run_rates else 0.0  # noqa: E731
        memory = memorise.memorise(Subject(), Ledger(), print, search, learns, seen)  # type: ignore[arg-type]
        return memory, asked[1:]

    return run


def test_what_was_seen_is_tried_before_the_rate(tried):
    memory, asked = tried({"data.mean=null", "optimizer.lr=3000"}, seen=["data.mean=null"])
    assert asked == ["data.mean=null"] and memory.others[-1].memorised
    _, asked = tried({"model.norm=batch"})
    assert asked == ["optimizer.momentum=0.9", "optimizer.lr=3000", "optimizer.lr=300", "model.norm=batch"]


def test_a_rate_counts_only_where_the_run_learns_with_it(tried):
    memory, asked = tried({"optimizer.lr=3000", "clip_norm=null"}, run_rates=(1000.0,))
    assert memory.for_run_learns and asked[-1] == "optimizer.lr=3000"
    memory, asked = tried({"optimizer.lr=3000", "clip_norm=null"})
    assert not memory.for_run_learns and asked[-1] == "clip_norm=null"
    memory, _ = tried({"optimizer.lr=3000", "clip_norm=null"}, run_rates=(None,))
    assert memory.run_learns, "the run itself learns at its own rate"
