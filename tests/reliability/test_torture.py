"""A run killed at random moments and resumed arrives at the same bits (at length: scripts/torture.py --kills 200)."""

import os
import subprocess
import sys

import pytest

from deeptrain.runtime.resources import ROOT

pytestmark = pytest.mark.slow

SMALL = ["model=fcn", "model.hidden=[16]", "model.dropout=0.2", "epochs=2", "batch_size=64", "data.size=640"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_arrive_at_the_same_bits():
    """Weights, optimizer, average, metrics.csv and TensorBoard's points; mixup, cutout, dropout and EMA are on."""
    script = [sys.executable, str(ROOT / "scripts" / "torture.py"), "--kills", "2", "data=synthetic", *SMALL]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all bits agree" in done.stdout and "differs" not in done.stdout
