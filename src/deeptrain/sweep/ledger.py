"""Where every job of a sweep stands, read from its folder: done, failed, held by somebody, or open."""

import json
from pathlib import Path
from typing import Any

from deeptrain.run import folder as run_folder
from deeptrain.run.saved import read_json
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.signals import EXIT_CODE
from deeptrain.sweep.plan import Job, Plan

DONE = ("finished", "stopped_early", "pruned")  # statuses of a run that needs no further work
MAX_OUTPUT = 4000  # characters of what a job has said last


class Ledger:
    """What has come of the jobs. Only what is done is remembered: it stays so. All else is read anew each time."""

    def __init__(self, plan: Plan):
        self.plan, self._done = plan, {}
        self._done: dict[str, dict[str, Any]] = {}

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results of the jobs that are done, by name."""
        for job in self.plan.jobs:
            self.is_done(job)
        return self._done

    def is_done(self, job: Job) -> bool:
        if job.name not in self._done:
            result = run_folder.read_result(job.folder)
            if result.get("status") not in DONE:
                return False
            self._done[job.name] = result
        return True

    def failures(self) -> dict[str, str]:
        """Return the error of each job that failed, by name."""
        errors = {job.name: self._error(job) for job in self.plan.jobs if not self.is_done(job)}
        return {name: error for name, error in errors.items() if error is not None}

    def note_failure(self, job: Job, exit_code: int | None, output: str) -> str:
        """Write down that a job failed, in a file of its own; return its error."""
        path = self._path(job)
        attempts = read_json(path, dict, {}).get("attempts", 0)
        error = _describe(run_folder.read_result(job.folder), exit_code, output)
        record = {"error": error, "attempts": attempts + 1, "exit_code": exit_code, "output": output[-MAX_OUTPUT:]}
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(record, indent=1).encode())
        return error

    def forget_failure(self, job: Job) -> None:
        """Drop the record of a job that has come to its end now."""
        self._path(job).unlink(missing_ok=True)

    def _error(self, job: Job) -> str | None:
        if record := read_json(self._path(job), dict, {}):
            return str(record.get("error", "unknown"))
        result = run_folder.read_result(job.folder)  # of a job whose worker was killed before it could write it down
        return str(result.get("reason")) if result.get("status") == "failed" else None

    def _path(self, job: Job) -> Path:
        return self.plan.folder / "failures" / f"{job.folder.name}.json"


def _describe(result: dict[str, Any], exit_code: int | None, output: str) -> str:
    """Say in a line why a job failed: by its own reason, the signal that killed it, or what it said last."""
    if result.get("status") == "failed" or exit_code == EXIT_CODE:
        return str(result.get("reason", "stopped from outside"))
    if exit_code is not None and exit_code < 0:
        return f"killed by signal {-exit_code}" + (" (too little memory?)" if exit_code == -9 else "")
    lines = output.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"exit code {exit_code}"
