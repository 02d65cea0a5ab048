"""Runs and sweeps that are killed at random moments and resumed arrive at the same bits.

At length: scripts/torture.py --kills 200, scripts/torture_sweep.py.
"""

import os
import subprocess
import sys

import forked
import pytest

from deeptrain.runtime.resources import ROOT

pytestmark = pytest.mark.slow

SMALL = ["model=fcn", "model.hidden=[16]", "model.dropout=0.2", "epochs=2", "batch_size=64", "data.size=640"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_arrive_at_the_same_bits():
    """Weights, optimizer, average, metrics.csv and TensorBoard's points; mixup, cutout, dropout and EMA are on."""
    script = [sys.executable, str(ROOT / "scripts" / "torture.py"), "--kills", "2", "data=synthetic", *SMALL]
    done = forked.run(script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all bits agree" in done.stdout and "differs" not in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_sweep_arrives_at_the_same_bits_and_runs_no_job_twice():
    """All its processes are killed at one moment; one or two terminals go on with it."""
    script = [sys.executable, str(ROOT / "scripts" / "torture_sweep.py"), "--kills", "2", "--seeds", "2"]
    done = subprocess.run([*script, "aug=none,[mixup]"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 jobs, 2 kills of everything: all bits agree, none was run again" in done.stdout
