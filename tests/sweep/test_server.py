"""The fork server of the product: it has imported everything, and nothing of it is left to harm a run."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from deeptrain.errors import UsageError
from deeptrain.sweep import server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not server.HAS_FORK, reason="needs fork")]


def state() -> dict[str, object]:
    """Say what a process finds when it begins."""
    import torch

    ignored = [number for number in signals() if signal.getsignal(number) == signal.SIG_IGN]
    return {
        "cuda": torch.cuda.is_initialized(),
        "imported": "deeptrain.training.trainer" in sys.modules and "matplotlib.figure" in sys.modules,
        "leader": os.getsid(0) == os.getpid(),
        "deaf": [*ignored, *signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }


def signals() -> list[int]:
    from deeptrain.runtime.signals import SIGNALS

    return list(SIGNALS)


def refuse() -> None:
    raise UsageError(["no such thing"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_a_signal(words: list[str]) -> int:
    Path(words[0]).touch()
    time.sleep(60)
    return 0


def test_a_process_begins_with_everything_imported_and_hears_signals():
    deaf = [signal.SIGUSR2]  # Slurm sends it to all processes of a task; the worker's submitit answers it
    assert server.call(state) == {"cuda": False, "imported": True, "leader": True, "deaf": deaf}


def test_what_a_process_raises_is_raised_here_and_its_death_is_an_error():
    with pytest.raises(UsageError, match=r"^no such thing$") as error:
        server.call(refuse)
    assert error.value.lines == ["no such thing"]
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        server.call(die)


def test_a_command_can_be_asked_to_stop_and_its_output_is_in_its_file(tmp_path):
    process = server.Process(wait_for_a_signal, [str(tmp_path / "begun")], tmp_path / "output.txt", {})
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.exit_code is None
    process.send_signal(signal.SIGINT)
    server.wait_for_one([process], 60)
    assert process.exit_code == 1 and "KeyboardInterrupt" in (tmp_path / "output.txt").read_text()
    process.send_signal(signal.SIGINT)  # it has ended already
    process.close()
