"""What a cluster's tasks run in place of a training: imported by them, from this folder."""

import json
import os
import time
from pathlib import Path

from deeptrain.runtime import signals
from deeptrain.sweep import server

server.PRELOAD = []  # what follows needs no torch


def run(words: list[str]) -> int:
    """Note who runs a job, and finish it; seed=1 fails until it is mended, seed=slow waits to be asked to stop once."""
    (word,) = [word for word in words if word.startswith(("dir=", "resume="))]
    folder = Path(word.partition("=")[2].strip("'"))
    folder.mkdir(exist_ok=True)
    with (folder.parent / "ran.txt").open("a") as file:
        file.write(f"{folder.name} {os.environ.get('RAN_ON', '')} {os.environ.get('SLURM_ARRAY_TASK_ID', '')}\n")
    if folder.name == "seed=1" and not (folder.parent / "mended").exists():
        os.write(2, b"error: no luck\n")
        return 1
    if folder.name == "seed=slow" and not (folder / "saved").exists():
        asked: list[int] = []
        with signals.handle_signals(asked.append):
            (folder / "waits").touch()
            while not asked:
                time.sleep(0.05)
        (folder / "saved").touch()
        return signals.EXIT_CODE
    result = {"status": "finished", "monitor": "accuracy/val", "higher_is_better": True, "best": 0.5, "steps": 1}
    result |= {"as_percent": True, "seconds": 1.0, "train_seconds": 1.0, "metrics": {}}
    (folder / "result.json").write_text(json.dumps(result))
    return 0
