"""A worker takes the next job that nobody has, runs it or goes on with it, and repeats. Any number of them may work."""

import platform
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deeptrain.report import formatting
from deeptrain.run.lock import is_locked
from deeptrain.runtime import signals
from deeptrain.sweep import server
from deeptrain.sweep.claims import Claims
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.plan import Job, Plan, start_words
from deeptrain.sweep.screen import Screen, Standing, describe, outcome, seconds_left

LOOK_SECONDS = 1.0  # between two looks at the running jobs


@dataclass
class Running:
    """A job of this worker that runs now."""

    job: Job
    process: server.Process
    output: Path


class Worker:
    """Works through the jobs of a sweep, `slots` at a time, until none is left to take.

    command: what a job's words are given to. gpus: those to spread the jobs over. retry: failed jobs get another
    attempt. fail_fast: the first failure stops the sweep. only: the name of the one job that it may take. grow: makes a
    plan with one more job where none is left to take; None if there is to be no more. What others do in the same folder
    is seen at every look.
    """

    def __init__(
        self,
        plan: Plan,
        command: server.Command,
        slots: int,
        gpus: list[str],
        *,
        retry: bool = False,
        fail_fast: bool = False,
        grow: Callable[[Ledger], Plan | None] | None = None,
        only: str | None = None,
    ):
        self.grow = grow
        self.plan, self.command, self.slots, self.gpus, self.fail_fast = plan, command, slots, gpus, fail_fast
        self.only = only
        self.ledger, self.claims, self.screen = Ledger(plan), Claims(plan.folder / "claims"), Screen()
        self.retry = set(self.ledger.failures()) if retry else set()
        self.running: list[Running] = []
        self.received: list[int] = []  # signals that asked to stop
        self.is_stopping = False
        self._width = max(len(job.name) for job in plan.jobs)

    def work(self) -> None:
        """Run jobs until none is left. Asked to stop, start no other, and wait until the running ones have saved."""
        with signals.handle_signals(self._receive):
            try:
                while self._fill() or self.running or self._has_orphans():
                    server.wait_for_one([each.process for each in self.running], LOOK_SECONDS)
                    self._collect()
                    self.claims.refresh()
                    self.screen.draw(self.look())
            finally:
                self.screen.close()

    def save(self) -> None:
        """Ask the running jobs to stop, and wait until they have saved."""
        self._stop(signal.SIGTERM)
        while self.running:
            server.wait_for_one([each.process for each in self.running], LOOK_SECONDS)
            self._collect()

    def _receive(self, number: int) -> None:
        self.received.append(number)
        self._stop(number)

    def _stop(self, number: int) -> None:
        self.is_stopping = True
        for each in self.running:
            each.process.send_signal(number)

    # --- jobs ---

    def _fill(self) -> bool:
        """Start jobs in the free slots; tell whether one was started."""
        started = False
        while not self.is_stopping and len(self.running) < self.slots and (job := self._take()) is not None:
            self._start(job)
            started = True
        return started

    def _take(self) -> Job | None:
        """Claim the first job that is open and that nobody works on, if need be a new one."""
        job = self._claim()
        while job is None and not self._has_orphans() and self._has_grown():
            job = None if self.is_stopping else self._claim()
        return job

    def _has_grown(self) -> bool:
        """Tell whether the plan has got another job."""
        plan = self.grow(self.ledger) if self.grow else None
        if plan is None:
            return False
        self.plan = self.ledger.plan = plan
        self._width = max(len(job.name) for job in plan.jobs)
        return True

    def _claim(self) -> Job | None:
        for job in self._open():
            gpu = self._free_gpu()
            if is_locked(job.folder) or not self.claims.take(job.folder.name, **({"gpu": gpu} if gpu else {})):
                continue
            if job in self._open() and not is_locked(job.folder):  # nobody has worked on it since
                return job
            self.claims.release(job.folder.name)
        return None

    def _open(self) -> list[Job]:
        """Return the jobs that are still to be run."""
        closed = {*self.ledger.results(), *self.ledger.failures()} - self.retry
        return [job for job in self.plan.jobs if job.name not in closed and self.only in (None, job.name)]

    def _has_orphans(self) -> bool:
        """Tell whether there are jobs whose worker was killed and that are just saving: soon somebody can take them."""
        if self.is_stopping:
            return False
        owners = self.claims.owners()
        return any(job.folder.name not in owners for job in self._open())

    def _free_gpu(self) -> str | None:
        """Return the GPU with the fewest jobs on it, those of other terminals on this machine included."""
        if not self.gpus:
            return None
        taken = [owner.get("gpu") for owner in self.claims.owners().values() if owner.get("host") == platform.node()]
        return min(self.gpus, key=taken.count)

    def _start(self, job: Job) -> None:
        gpu = (self.claims.owner(job.folder.name) or {}).get("gpu")
        environment = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        output = self.claims.folder / f".{job.folder.name}.txt"
        self.running.append(Running(job, server.Process(self.command, start_words(job), output, environment), output))
        for number in self.received:  # while it was being started
            self.running[-1].process.send_signal(number)

    def _collect(self) -> None:
        """Write down what came of the jobs that have ended, and free what they held."""
        for each in [each for each in self.running if each.process.exit_code is not None]:
            job, code = each.job, each.process.exit_code
            output = each.output.read_text("utf-8", "replace") if each.output.is_file() else ""
            self.running.remove(each)
            self.retry.discard(job.name)
            if self.ledger.is_done(job):
                self.ledger.forget_failure(job)
                self.show_ended(job, outcome(self.ledger.results()[job.name]))
            elif not self.is_stopping:
                self.show_ended(job, f"failed: {self.ledger.note_failure(job, code, output)}")
                if self.fail_fast:
                    self._stop(signal.SIGTERM)
            each.process.close()
            each.output.unlink(missing_ok=True)
            self.claims.release(job.folder.name)

    # --- what is seen ---

    def show_ended(self, job: Job, what: str) -> None:
        ended, total = len(self.ledger.results()) + len(self.ledger.failures()), self.plan.total
        left = self._seconds_left([each.job for each in self.running], self.slots)
        estimate = f"   about {formatting.duration(left)} left" if left else ""
        self.screen.show(f"{ended:>3}/{total}  {job.name:<{self._width}}  {what}{estimate}")

    def _seconds_left(self, running: list[Job], at_once: int) -> float | None:
        failed = self.ledger.failures()
        jobs = [job for job in self.plan.jobs if job.name not in failed]
        standings = {job.name: Standing.read(job) for job in running}
        return seconds_left(jobs, self.ledger.results(), standings, at_once, self.plan.total - len(self.plan.jobs))

    def look(self) -> list[str]:
        """Compose the block of the screen: where the sweep stands, and every job that runs, also in other terminals."""
        results, failed, owners = self.ledger.results(), self.ledger.failures(), self.claims.owners()
        running = [job for job in self.plan.jobs if job.folder.name in owners and job.name not in results]
        left = None if self.is_stopping else self._seconds_left(running, len(running))
        waiting = self.plan.total - len(results) - len({*failed, *(job.name for job in running)})
        counts = [f"{len(results)} of {self.plan.total} done", *([f"{len(failed)} failed"] if failed else [])]
        counts += [f"{len(running)} run", f"{waiting} wait"] if not self.is_stopping else [f"{len(running)} save"]
        head = ", ".join(counts) + (f"; about {formatting.duration(left)} left" if left is not None else "")
        own, width = {each.job.name for each in self.running}, max((len(job.name) for job in running), default=0)
        return [
            head,
            *(
                describe(job, Standing.read(job), width, "" if job.name in own else _where(owners[job.folder.name]))
                for job in running
            ),
        ]


def _where(owner: dict[str, object]) -> str:
    return f"(process {owner.get('process', '?')} on {owner.get('host', '?')})"
