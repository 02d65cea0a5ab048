"""launcher=slurm: the jobs of a sweep as one job array, by submitit. Slurm decides where and when each of them runs."""

import logging
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from deeptrain.errors import UsageError
from deeptrain.runtime.paths import quote
from deeptrain.schema import NonNegativeInt, PositiveFloat, PositiveInt
from deeptrain.sweep.cluster import Task

FOLDER = "slurm"  # of submitit's files, in that of the sweep
WARNING_SECONDS = 120  # before the time limit, in which a job saves; a quarter of a shorter limit
POLL_SECONDS = 10.0  # between two questions to Slurm
MAX_REQUEUED = 100  # time limits that a job may meet


@dataclass
class SlurmOptions:
    """What each job asks Slurm for. cluster: local and debug try the same on this machine, without Slurm."""

    partition: str | None = field(default=None, metadata={"key": "launcher.partition"})
    time: PositiveInt = field(
        default=240, metadata={"key": "launcher.time"}
    )  # minutes; then a job saves, and waits anew
    gpus: NonNegativeInt = field(default=0, metadata={"key": "launcher.gpus"})
    cpus: PositiveInt | None = field(default=None, metadata={"key": "launcher.cpus"})  # None: the threads of a job
    mem: PositiveFloat | None = field(default=None, metadata={"key": "launcher.mem"})  # GB
    account: str | None = field(default=None, metadata={"key": "launcher.account"})
    qos: str | None = field(default=None, metadata={"key": "launcher.qos"})
    constraint: str | None = field(default=None, metadata={"key": "launcher.constraint"})
    cluster: Literal["slurm", "local", "debug"] = field(default="slurm", metadata={"key": "launcher.cluster"})


class Requeued:
    """A task that Slurm may queue again: at its time limit the job saves first."""

    def __init__(self, task: Task):
        self.task = task

    def __call__(self) -> None:
        self.task()

    def checkpoint(self) -> Any:
        """Save, and return what goes on: submitit calls this at the time limit and before a preemption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Requeued(self.task.save()))


class Slurm:
    """A job array. at_once: how many of its tasks run at a time, for Slurm to heed; None: as many as it finds room for.

    Raises UsageError if submitit or Slurm is not there.
    """

    def __init__(self, options: SlurmOptions, threads: int, at_once: int | None):
        if find_spec("submitit") is None:
            raise UsageError(["launcher=slurm: needs the package submitit; pip install 'deeptrain[slurm]'"])
        if options.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise UsageError(["launcher=slurm: there is no Slurm on this machine; type this where sbatch works"])
        self.options, self.cpus, self._limit = options, options.cpus or threads, at_once
        self.at_once = None if options.cluster == "slurm" else at_once or 1
        self._jobs: dict[str, Any] = {}
        self._executor: Any = None
        self._known: set[str] | None = None  # the ids that squeue has named last
        self._asked = time.monotonic()

    def _start(self, folder: Path) -> Any:
        """Make submitit's executor, which keeps its files in a folder."""
        import submitit

        logging.getLogger("submitit").setLevel(logging.CRITICAL)
        options = self.options
        executor = submitit.AutoExecutor(folder, cluster=options.cluster, slurm_max_num_timeout=MAX_REQUEUED)
        parameters = {
            "name": "deeptrain",
            "timeout_min": options.time,
            "cpus_per_task": self.cpus,
            "gpus_per_node": options.gpus or None,
            "mem_gb": options.mem,
            "stderr_to_stdout": True,
            "slurm_partition": options.partition,
            "slurm_account": options.account,
            "slurm_qos": options.qos,
            "slurm_constraint": options.constraint,
            "slurm_signal_delay_s": min(WARNING_SECONDS, 15 * options.time),
            "slurm_array_parallelism": self._limit or 10_000,
        }
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        return executor

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit one array; UsageError with what sbatch says against it."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        self.folder = tasks[0].folder / FOLDER
        self._executor = self._executor or self._start(self.folder)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Requeued(task)) for task in tasks]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise UsageError([f"launcher=slurm: sbatch refuses the jobs ({reason})"]) from error
        self._jobs |= {task.name: job for task, job in zip(tasks, jobs, strict=True)}

    def ended(self) -> dict[str, str]:
        if self.options.cluster != "slurm":
            return {name: "" for name, job in self._jobs.items() if job.done()}
        queued = self._queued()
        found = {}
        for name, job in self._jobs.items():
            if job.paths.result_pickle.exists():
                found[name] = ""
            elif queued is not None and job.job_id not in queued:
                found[name] = f"Slurm has ended it, see {_shown(job.paths.stdout)}"
        return found

    def _queued(self) -> set[str] | None:
        """Return the ids that wait or run; None as long as that is not known. squeue is asked every few seconds.

        sacct, which submitit asks, knows nothing on a cluster that keeps no accounts.
        """
        if time.monotonic() < self._asked + POLL_SECONDS:
            return self._known
        self._asked = time.monotonic()
        words = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(self.ids)}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if not done.returncode or "Invalid job id" in done.stderr:  # it has forgotten them
            self._known = set(done.stdout.split())
        return self._known

    def interrupt(self) -> list[str]:
        """Leave the jobs to Slurm. Those on this machine alone, for a try, are ended."""
        if self.options.cluster != "slurm":
            self.cancel()
            return []
        ids = ",".join(self.ids)
        return [
            f"slurm   {ids} stays in the queue, and needs nobody here",
            f"follow  squeue --jobs {ids}",
            f"cancel  scancel {ids}   (running jobs save)",
        ]

    def cancel(self) -> None:
        for job in self._jobs.values():
            if not job.paths.result_pickle.exists():
                job.cancel(check=False)

    @property
    def ids(self) -> list[str]:
        """Return the numbers of the arrays."""
        return list(dict.fromkeys(str(job.job_id).partition("_")[0] for job in self._jobs.values()))

    def lines(self) -> list[str]:
        if self.options.cluster != "slurm":
            return [f"slurm   a try on this machine (launcher.cluster={self.options.cluster})"]
        jobs = f"{len(self._jobs)} job{'' if len(self._jobs) == 1 else 's'}"
        needs = f"cpus={self.cpus} gpus={self.options.gpus} time={self.options.time} each"
        return [f"slurm   {','.join(self.ids)}: {jobs}, {needs}; logs in {_shown(self.folder)}"]


def _shown(path: Path) -> str:
    """Write a path as short as it can be typed here."""
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
