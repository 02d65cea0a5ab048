"""Training to the end: signals, recovery, and every error as a status and a reason."""

import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.config.settings import RunConfig
from deeptrain.errors import error_line
from deeptrain.runtime import signals
from deeptrain.runtime.garbage import USUALLY, collect_every

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer


@collect_every(USUALLY)
def fit(trainer: "Trainer", run: RunConfig, run_dir: Path | None) -> tuple[str, str]:
    """Train; return status and reason, also of an error. The traceback of an unforeseen error goes into run.log."""
    from deeptrain.runtime.device import is_out_of_memory
    from deeptrain.runtime.files import DISK_FULL
    from deeptrain.training import recovery

    try:
        with signals.handle_signals(
            signals.first_then_exit(trainer.stop.request, trainer.world.signal_grace)
        ):  # it ends its step and saves
            return recovery.fit(trainer, run.settings.on_nan)
    except (recovery.TrainingFailed, ValueError) as error:  # a ValueError: an image that cannot be read, in one line
        return "failed", str(error)
    except Exception as error:
        if os.environ.get("DEEPTRAIN_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return "failed", f"{error_line(error)}; make room, then go on from the last checkpoint"
        if is_out_of_memory(error):
            return "failed", f"out of memory in step {trainer.progress.step + 1}: {_memory_hint(trainer, run)}"
        first = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        first = trainer.world.describe_error(first)
        if run_dir is None:
            return "failed", first
        with suppress(OSError), (run_dir / "run.log").open("a") as log:
            traceback.print_exc(file=log)
        return "failed", f"{first} (traceback in {run_dir / 'run.log'})"


def _memory_hint(trainer: "Trainer", run: RunConfig) -> str:
    """Return what to change when memory runs out; first the settings that keep the same step."""
    images = len(trainer.train_loader.indices(0, 0))
    pieces = "" if run.settings.accumulate == "auto" else "go on with accumulate=auto (the same step, in pieces), or "
    smaller = [
        f"batch_size={max(1, images // 2)}",
        *(["precision=bf16"] if trainer.runtime.precision == "fp32" else []),
    ]
    return f"{pieces}start anew with {', '.join(smaller)}, a smaller model or another device"
