"""Started by torchrun: train several runs, one after the other in the same processes; each argument holds the words.

The last one does not end by itself: its process 1 alone gets a SIGTERM.
"""

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

from deeptrain.run import artifacts, launch
from deeptrain.runtime import distributed
from deeptrain.runtime.world import get_world


def stop_once_it_trains(folder: Path) -> None:
    while not (folder / "checkpoints" / "last.previous.pt").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    end, distributed._destroy = distributed._destroy, lambda: None  # the processes meet once
    artifacts._draw = lambda *_: None
    *words, endless = map(shlex.split, sys.argv[1:])
    codes = [launch.main(each) for each in words]
    if get_world().rank == 1:
        (folder,) = (Path(word.removeprefix("dir=")) for word in endless if word.startswith("dir="))
        threading.Thread(target=stop_once_it_trains, args=(folder,)).start()
    codes.append(launch.main(endless))
    end()
    sys.exit(codes != [0] * len(words) + [130])
