"""A sweep of 300 small runs leaves no process, open file, memory or stray file behind. Linux only.

python scripts/many_jobs.py                  300 runs, two at a time
python scripts/many_jobs.py --jobs 60        fewer
"""

import argparse
import os
import shutil
import sys
import tempfile
from multiprocessing import forkserver, util
from pathlib import Path

from deeptrain.commands.cli import train
from deeptrain.sweep import launch, server
from deeptrain.sweep.check import check
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import lay_out, moved, save

WORDS = ["data=synthetic", "data.size=40", "model=fcn", "model.hidden=[8]", "limit_steps=2", "loggers=none"]
WORDS += ["device=cpu", "threads=1", "batch_size=16", "validate.clean_images=16"]
WARM_UP, MAX_GROWTH = 10, 32 * 2**20  # runs; bytes: a table of 300 runs is made at the end


def sweep(folder: Path, jobs: int) -> int:
    folder.mkdir()
    plan, _, _ = check(lay_out([*WORDS, f"seed=range({jobs})"]))
    save(plan := moved(plan, folder))
    return launch.work(plan, train, 2, [], Options())


def held() -> dict[str, set[str]]:
    """Return what this process and its server hold: their open files, their children, and what lies about."""
    own = {"this process": os.getpid(), "the server": forkserver._forkserver._forkserver_pid}  # type: ignore
    found = {f"open files of {name}": _targets(Path(f"/proc/{pid}/fd")) for name, pid in own.items()}
    parents = [(path.name, _parent(path)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found["processes"] = {name for name, parent in parents if parent in own.values()}
    found["temporary files"] = {str(path) for path in Path(os.environ["TMPDIR"]).iterdir()}
    return found


def _targets(folder: Path) -> set[str]:
    """Return the numbers of the open files of a process."""
    return {path.name for path in folder.iterdir() if path.is_symlink()}


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def memory() -> dict[str, int]:
    """Return the resident bytes of this process and of the server."""
    own = {"this process": os.getpid(), "the server": forkserver._forkserver._forkserver_pid}  # type: ignore
    pages = {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for name, pid in own.items()}
    return {name: count * os.sysconf("SC_PAGE_SIZE") for name, count in pages.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    jobs = parser.parse_args(arguments).jobs
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        own = tempfile.mkdtemp()  # in which nobody else leaves anything
        util.Finalize(None, shutil.rmtree, (own, True), exitpriority=-200)  # after multiprocessing's own folder
        os.environ["TMPDIR"], tempfile.tempdir = own, own
        server.start()
        if sweep(Path("warm_up"), WARM_UP):
            return 1
        before, bytes_before = held(), memory()
        if sweep(Path("sweep"), jobs):
            return 1
        after, bytes_after = held(), memory()
        left = [str(path) for name in ("claims", "failures") for path in Path("sweep", name).glob("*")]
        extra = {name: sorted(after[name] - before[name]) for name in after}
        extra["files in the sweep's folder"] = left + [str(path) for path in Path("sweep").rglob(".*")]
        grown = {name: bytes_after[name] - bytes_before[name] for name in bytes_after}
    for name, entries in extra.items():
        print(f"{name}: {', '.join(entries) or 'nothing is left'}")
    for name, count in grown.items():
        print(f"memory of {name}: {count / 2**20:+.1f} MiB after {jobs} runs")
    return int(any(extra.values()) or max(grown.values()) > MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
