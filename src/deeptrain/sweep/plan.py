"""The plan of a sweep: its jobs in order, each with its own words; written into sweep.json before the first starts."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deeptrain.config.compose import compose_sweep, declares_multirun
from deeptrain.config.override import last_value, override_key, quote_value, unquote_path
from deeptrain.config.repeats import FOLD, SEED
from deeptrain.errors import UsageError
from deeptrain.run import folder as run_folder
from deeptrain.run.saved import TRUSTED, check_trusted, read_json, writes_elsewhere
from deeptrain.runtime.files import write_atomically
from deeptrain.sweep import folds

FILE = "sweep.json"
MAX_NAME = 180  # letters of a folder's name


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its words, and the part of them that is swept."""

    folder: Path
    words: tuple[str, ...]
    swept: dict[str, str]
    steps: int | None = None  # of the whole run

    @property
    def name(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.swept.items())

    @property
    def setting(self) -> str:
        """Name the setting that this run repeats: what is swept, seed and fold left out."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items() if key not in (SEED, FOLD)) or "all"


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep, in the order in which they are taken. words: what was typed, without the sweep's options."""

    folder: Path
    words: tuple[str, ...]
    keys: tuple[str, ...]
    jobs: tuple[Job, ...]
    facts: dict[str, Any] = field(default_factory=dict)  # versions, when it was made, what a search is to do

    @property
    def total(self) -> int:
        """Return how many jobs there will be: a search makes them one by one."""
        return max(len(self.jobs), self.facts.get("trials") or 0)


def lay_out(words: Sequence[str], base: Path = Path()) -> Plan:
    """Expand the words of a sweep into its jobs, every one composed and checked; UsageError with all mistakes.

    Seeds are outermost, so that a sweep which is cut short has measured all settings equally often. Then come folds.
    """
    count, rest = folds.take_out(words)
    all_words, keys = compose_sweep([*rest, *folds.axis(count)])
    swept = [{key: _value(job_words, key) for key in keys} for job_words in all_words]
    folds.check_seeds(count, rest, list({each.get(SEED) for each in swept}))
    if count:
        all_words = [folds.deal_by_seed(job_words) for job_words in all_words]
    return make(words, keys, list(zip(all_words, swept, strict=True)), base)


def make(
    words: Sequence[str], keys: Sequence[str], jobs: Sequence[tuple[list[str], dict[str, str]]], base: Path
) -> Plan:
    """Make a plan of jobs, each given by its words and what is swept of them."""
    seeds, parts = (list(dict.fromkeys(swept.get(key) for _, swept in jobs)) for key in (SEED, FOLD))
    ordered = sorted(jobs, key=lambda job: (seeds.index(job[1].get(SEED)), parts.index(job[1].get(FOLD))))
    made: list[Job] = []
    for index, (job_words, swept) in enumerate(ordered):
        job = Job(base, tuple(job_words), swept)
        job = replace(job, folder=base / folder_name(job.name))
        if job.folder in [earlier.folder for earlier in made]:  # they differ in signs that no folder's name can have
            job = replace(job, folder=job.folder.with_name(f"{job.folder.name}-{index}"))
        made.append(job)
    return Plan(base, tuple(words), tuple(keys), tuple(made))


def moved(plan: Plan, base: Path) -> Plan:
    """Return the plan with its folders in another one."""
    return replace(plan, folder=base, jobs=tuple(replace(job, folder=base / job.folder.name) for job in plan.jobs))


def _value(words: list[str], key: str) -> str:
    values = [unquote_path(word).partition("=")[2] for word in words if word.lstrip("+").partition("=")[0] == key]
    return values[-1]  # which counts


def folder_name(name: str) -> str:
    """Turn the swept settings into the name of a folder: TensorBoard shows it as the name of the run."""
    listed = re.sub(r"\[([^]]*)\]", lambda match: match[1].replace(",", "+") or "none", name)
    safe = re.sub(r"[^\w=+,.-]", "_", listed).lstrip(".") or "all"
    return safe if len(safe) <= MAX_NAME else f"{safe[: MAX_NAME - 10]}-{sha256(name.encode()).hexdigest()[:8]}"


# --- sweep.json ---


def save(plan: Plan) -> None:
    """Write sweep.json, whole or not at all."""
    jobs = [
        {"folder": job.folder.name, "words": list(job.words), "swept": job.swept, "steps": job.steps}
        for job in plan.jobs
    ]
    content = {**plan.facts, "words": list(plan.words), "keys": list(plan.keys), "jobs": jobs}
    write_atomically(plan.folder / FILE, json.dumps(content, indent=1).encode())


def load(folder: Path, now: Sequence[str] = ()) -> Plan:
    """Read the plan of a sweep; UsageError if it is damaged, or asks for what a stranger's folder may not decide.

    now: the words typed now; a word of TRUSTED counts only if it is typed now too.
    """
    content = read_json(folder / FILE, dict, {})
    try:
        jobs = tuple(_job(folder, entry) for entry in content["jobs"])
        words, keys = tuple(map(str, content["words"])), tuple(map(str, content["keys"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError([f"{folder / FILE}: is damaged; start a new sweep"]) from error
    check_trusted(folder / FILE, [*words, *(word for job in jobs for word in job.words)], now)
    facts = {key: value for key, value in content.items() if key not in ("words", "keys", "jobs")}
    return Plan(folder, words, keys, jobs, facts)


def _job(folder: Path, entry: dict[str, Any]) -> Job:
    name, words, swept, steps = entry["folder"], entry["words"], entry["swept"], entry.get("steps")
    if not isinstance(name, str) or name != Path(name).name or name.startswith("."):
        raise ValueError("a job's folder is inside that of its sweep")
    if not isinstance(steps, int | None) or not all(isinstance(word, str) for word in words):
        raise TypeError
    return Job(folder / name, tuple(words), {str(key): str(value) for key, value in swept.items()}, steps)


def is_sweep(path: Path) -> bool:
    return (path / FILE).is_file()


def is_search(path: Path) -> bool:
    """Tell whether a sweep's jobs are drawn by a search."""
    return "sampler" in read_json(path / FILE, dict, {})


def start_words(job: Job) -> list[str]:
    """Return the words that start a job, or go on with it where it has begun.

    A resumed run takes its words from its folder, but for those that only its user may decide.
    """
    if not (job.folder / run_folder.OVERRIDES).is_file():
        return [*job.words, f"dir={quote_value(str(job.folder))}"]
    own = [word for word in job.words if override_key(word) in TRUSTED or writes_elsewhere(word)]
    return [f"resume={quote_value(str(job.folder))}", *own]


def is_declared(words: list[str]) -> bool:
    """Tell whether a command is a sweep without -m: by folds=, or an experiment's file (hydra.mode: MULTIRUN)."""
    is_experiment = any(word.startswith("experiment=") for word in words)
    return folds.WORD in map(override_key, words) or (is_experiment and declares_multirun(words))


def named(words: list[str]) -> Path | None:
    """Return the sweep that resume= names; None if it names a run, or nothing."""
    path = last_value(words, "resume")
    return Path(path).expanduser() if path is not None and is_sweep(Path(path).expanduser()) else None
