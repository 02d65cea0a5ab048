"""Several runs, one after the other in the same forked processes: python together.py OPTIONS RUN..., as launched.py.

Each RUN holds the words of one. The last one does not end by itself: its process 1 alone gets a SIGTERM.
"""

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from deeptrain.run import artifacts, launch
from deeptrain.runtime import distributed
from deeptrain.runtime.world import get_world


def stop_once_it_trains(folder: Path) -> None:
    while not (folder / "checkpoints" / "last.previous.pt").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def train_all(*runs: str) -> None:
    end, distributed._destroy = distributed._destroy, lambda: None  # the processes meet once
    artifacts._draw = lambda *_: None
    *words, endless = map(shlex.split, runs)
    codes = [launch.main(each) for each in words]
    if get_world().rank == 1:
        (folder,) = (Path(word.removeprefix("dir=")) for word in endless if word.startswith("dir="))
        threading.Thread(target=stop_once_it_trains, args=(folder,)).start()
    codes.append(launch.main(endless))
    end()
    sys.exit(codes != [0] * len(words) + [130])


if __name__ == "__main__":
    config = LaunchConfig(**json.loads(sys.argv[1]), max_restarts=0, start_method="fork")
    elastic_launch(config, train_all)(*sys.argv[2:])
