"""Folders of runs, read without importing torch: finished or not, of this version or an earlier one."""

import functools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deeptrain.config.override import override_key, override_value
from deeptrain.config.repeats import FOLD, FOLDS, SEED, SPLIT_SEED
from deeptrain.errors import UsageError
from deeptrain.loggers.metrics_csv import Row, read_rows
from deeptrain.run import answers, saved
from deeptrain.run.answers import Answers

DONE = ("finished", "stopped_early")
MAX_DEPTH = 6  # of folders between the one that is named and a run
GUESSING = 2.0  # standard errors of an accuracy above that of one answer: below it a run has learned nothing
Settings = dict[str, str]


@dataclass(frozen=True)
class Run:
    """What a folder says of a run. status: of result.json, or `unfinished`, `waiting` (of a sweep's job), `failed`."""

    path: Path
    status: str
    reason: str = ""
    words: tuple[str, ...] = ()
    config: Settings = field(default_factory=dict)  # flat: model.depth, with the value as text
    result: Mapping[str, Any] = field(default_factory=dict)
    planned: bool = False  # by the plan of a sweep

    @property
    def is_done(self) -> bool:
        return self.status in DONE

    @property
    def seed(self) -> str:
        return self._setting(SEED, "0")

    @property
    def folds(self) -> int:
        """Return the number of folds, one of which the run has held out; 0 without."""
        text = self._setting(FOLDS, "null")
        return int(text) if text.isdigit() else 0

    @property
    def fold(self) -> str:
        return self._setting(FOLD, "") if self.folds else ""

    @property
    def repeat(self) -> str:
        """Name what tells the run from the others of its setting, and pairs it with a run of another: seed and fold."""
        return f"{self.seed}, fold {self.fold} of {self.folds}" if self.folds else self.seed

    def is_repeat_key(self, key: str) -> bool:
        """Tell whether a key makes a repeat of a setting, not another setting: each seed may deal the folds anew."""
        return key in (SEED, FOLD) or (
            key == SPLIT_SEED and self.folds > 0 and self._setting(SPLIT_SEED, "0") == self.seed
        )

    def _setting(self, key: str, default: str) -> str:
        typed = [override_value(word) for word in self.words if override_key(word) == key]
        return self.config.get(key) or (typed or [default])[-1]

    @property
    def monitor(self) -> str:
        return str(self.result.get("monitor", ""))

    @property
    def version(self) -> str:
        versions = self._table("versions")
        return f"{versions.get('deeptrain', '?')} {versions.get('source', '')}".strip()

    @functools.cached_property
    def rows(self) -> list[Row]:
        """Return the rows of metrics.csv."""
        return read_rows(self.path / "metrics.csv")

    @property
    def test_openings(self) -> int:
        """Return how often the test split was opened with the weights of this run."""
        try:
            return saved.times_opened(self.path, "test")
        except UsageError:
            return 0

    @functools.cached_property
    def answers(self) -> Answers | None:
        return answers.load(self.path)

    def value(self, kind: str, monitor: str) -> float | None:
        """Return the metric of the final or the best weights; None if the run has not come to its end, or lacks it."""
        if not self.is_done:
            return None
        found = self.result.get("best") if kind == "best" and self.monitor == monitor else None
        found = self.final.get(monitor) if kind == "final" else found
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    @property
    def final(self) -> dict[str, Any]:
        """Return the metrics of the final weights by tag. Older runs have those of the last validation."""
        if isinstance(found := self.result.get("final"), dict):
            return found
        metrics = self._table("metrics")
        averaged = {tag.removesuffix("_average"): value for tag, value in metrics.items() if tag.endswith("_average")}
        return metrics | averaged

    @property
    def gap(self) -> float:
        """Return how much better the network is on its training images, not augmented, than on val (accuracy)."""
        return number(self._table("metrics").get("accuracy/train_clean")) - number(self.final.get("accuracy/val"))

    def _table(self, key: str) -> dict[str, Any]:
        """Return a part of result.json that is a table; {} if it is not there, or damaged."""
        found = self.result.get(key)
        return found if isinstance(found, dict) else {}

    @property
    def has_learned(self) -> bool:
        """Tell whether the answers are better than one and the same answer to all images, as far as is known."""
        if not self.is_done or self.answers is None or "final" not in self.answers.predicted:
            return True
        labels = self.answers.labels
        shares = [count / len(labels) for count in Counter(labels.tolist()).values()]
        right = float((self.answers.predicted["final"] == labels).mean())
        largest = max(shares)
        return len(shares) < 2 or right > largest + GUESSING * math.sqrt(largest * (1 - largest) / len(labels))


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# --- folders ---


def collect(folders: Iterable[Path]) -> list[Run]:
    """Read all runs in folders, and the jobs of sweeps that have no folder yet; UsageError for a folder without any."""
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.exists():
            raise UsageError([f"{folder}: there is no such folder; name a run, or a folder of runs"])
        found = list(_find(folder, MAX_DEPTH))
        if not found:
            raise UsageError([f"{folder}: holds no run (no overrides.yaml, no result.json); name a folder of runs"])
        runs |= {run.path.resolve(): run for run in found}
    return list(runs.values())


def is_run(path: Path) -> bool:
    """Tell whether a folder is that of a run."""
    return any((path / name).is_file() for name in ("overrides.yaml", "result.json"))


def _find(folder: Path, depth: int) -> Iterator[Run]:
    if is_run(folder):
        yield read_run(folder)
        return
    if not folder.is_dir() or not depth:
        return
    jobs = {job.path: job for job in _planned(folder)}
    below = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    for path in [*jobs, *(path for path in below if path not in jobs)]:
        job = jobs.get(path)
        if not is_run(path) and job is not None:
            yield job
        elif job is not None:
            run = read_run(path)
            failed = job.status == "failed" and not run.is_done
            status, reason = ("failed", job.reason) if failed else (run.status, run.reason)
            yield Run(path, status, reason, run.words, run.config, run.result, planned=True)
        else:
            yield from _find(path, depth - 1)


def _planned(folder: Path) -> list[Run]:
    """Return the jobs of sweep.json as runs that wait or have failed; [] if there is no plan that can be read."""
    content = _read_json(folder / "sweep.json")
    found = []
    for job in content.get("jobs") or []:
        name, words = (job.get("folder"), job.get("words")) if isinstance(job, dict) else (None, None)
        if not isinstance(name, str) or name != Path(name).name or not isinstance(words, list):
            continue
        failure = _read_json(folder / "failures" / f"{name}.json").get("error")
        status = "failed" if failure else "waiting"
        found.append(Run(folder / name, status, str(failure or ""), tuple(map(str, words)), planned=True))
    return found


def read_run(path: Path) -> Run:
    """Read what a run's folder says; what is missing or damaged is left out."""
    result = _read_json(path / "result.json")
    status = str(result.get("status", "unfinished"))
    return Run(path, status, str(result.get("reason", "")), _words(path), _config(path), result)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return saved.read_json(path, dict, {})
    except UsageError:
        return {}


def _words(path: Path) -> tuple[str, ...]:
    try:
        words = saved.read_overrides(path)
    except UsageError:
        return ()
    return tuple(word for word in words if override_key(word) not in ("dir", "resume", "rerun"))


def _config(path: Path) -> Settings:
    """Return config.yaml flat, every value as text; {} if there is none that can be read."""
    try:
        content = (path / "config.yaml").read_bytes()[: saved.MAX_YAML_BYTES].decode()
        parts = [_flat(part) for part in re.split(r"^(?=[^\s#-])", content, flags=re.MULTILINE) if part.strip()]
    except (OSError, UnicodeDecodeError, UsageError):
        return {}
    return {key: value for part in parts for key, value in part.items()}


@functools.lru_cache(maxsize=4096)
def _flat(part: str) -> Settings:
    """Flatten one top-level entry of a config. Runs of a sweep share most of them, and YAML is slow to read."""
    return dict(_flatten("", saved.parse_config(part, "config.yaml")))


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and (value or not prefix):
        if prefix == "aug":
            yield prefix, "+".join(map(str, value))
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, dict):
        yield prefix, "none"
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, default=str)
