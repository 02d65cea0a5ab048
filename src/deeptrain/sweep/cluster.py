"""A sweep on other machines: an engine places a task for each job and queues them; the sweep's folder stays the ledger.

A task is a worker that may take one job only. So claims, failures, results and going on are those of any sweep.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deeptrain.runtime import signals
from deeptrain.sweep import plan as plans
from deeptrain.sweep import server
from deeptrain.sweep.plan import Plan
from deeptrain.sweep.screen import outcome
from deeptrain.sweep.worker import LOOK_SECONDS, Worker

SEEN_SECONDS = 20.0  # in which this machine sees what another one has written, also on a slow disk


@dataclass
class Task:
    """One job of a sweep, as an engine sends it to another machine. cwd: the folder in which its words were typed."""

    folder: Path
    name: str
    words: tuple[str, ...]
    command: server.Command
    cwd: Path
    retry: bool = False
    _worker: Worker | None = field(default=None, repr=False)  # once it runs

    def __call__(self) -> None:
        """Run the job, or go on with it, unless it is done or somebody else works on it."""
        try:
            os.chdir(self.cwd)
        except OSError as error:
            raise RuntimeError(f"{self.cwd} is not there ({error.strerror}); all machines must share it") from error
        plan = plans.load(self.folder, self.words)
        self._worker = Worker(plan, self.command, 1, [], retry=self.retry, only=self.name)
        self._worker.work()

    def save(self) -> "Task":
        """Stop the job once it has saved; return the task that goes on with it."""
        if self._worker is not None:
            self._worker.save()
        return Task(self.folder, self.name, self.words, self.command, self.cwd)


class Engine(Protocol):
    """Places tasks on other machines.

    at_once: how many it is given at a time; None: all, as it has a queue of its own.
    """

    at_once: int | None

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks."""
        ...

    def ended(self) -> Mapping[str, str]:
        """Return the jobs whose task has ended, in whichever way; each with what its engine says of it."""
        ...

    def interrupt(self) -> list[str]:
        """Do what Ctrl-C asks for: have the running jobs saved, or leave all to the queue; say what goes on."""
        ...

    def cancel(self) -> None:
        """End all tasks. Running ones save."""
        ...

    def lines(self) -> list[str]:
        """Say where the tasks are, and what each is given."""
        ...


class Follower:
    """Gives an engine its tasks, and shows what comes of each job until all tasks have ended.

    lost: the jobs that their task has not done, each with what the engine says of it. They are open still.
    """

    def __init__(self, plan: Plan, command: server.Command, engine: Engine, *, retry: bool, fail_fast: bool):
        self.engine, self.fail_fast, folder = engine, fail_fast, plan.folder.resolve()
        self.worker = Worker(plan, command, 0, [], retry=retry)
        self.ledger, self.claims, self.received = self.worker.ledger, self.worker.claims, self.worker.received
        closed = {*self.ledger.results(), *self.ledger.failures()} - self.worker.retry
        self.jobs = {job.name: job for job in plan.jobs if job.name not in closed}
        self.waiting = [
            Task(folder, job.name, job.words, command, Path.cwd(), job.name in self.worker.retry)
            for job in self.jobs.values()
        ]
        self.settled: set[str] = set()
        self.lost: dict[str, str] = {}
        self._since: dict[str, float] = {}  # when a task was seen to have ended

    def work(self) -> None:
        """Return once all tasks have ended, or this process is asked to stop."""
        with signals.handle_signals(self.received.append):
            try:
                self._submit()
                self.worker.screen.show(*self.engine.lines())
                while not self.received:
                    self._look()
                    if len(self.settled) == len(self.jobs):
                        return
                    self._submit()
                    self.worker.screen.draw(self.worker.look())
                    time.sleep(LOOK_SECONDS)
            finally:
                self.worker.screen.close()
            self.worker.screen.show(*self.engine.interrupt())

    def _submit(self) -> None:
        """Submit what the engine is to have now."""
        under_way = len(self.jobs) - len(self.waiting) - len(self.settled)
        room = len(self.waiting) if self.engine.at_once is None else max(0, self.engine.at_once - under_way)
        now, self.waiting = self.waiting[:room], self.waiting[room:]
        if now:
            self.engine.submit(now)

    def _look(self) -> None:
        """Show a line for each job that has ended."""
        ended, results, failures = self.engine.ended(), self.ledger.results(), self.ledger.failures()
        for name in [name for name in self.jobs if name not in self.settled and (name in ended or name in results)]:
            if name in results:
                self._settle(name, outcome(results[name]))
            elif name in failures:
                self._settle(name, f"failed: {failures[name]}")
                if self.fail_fast:
                    self._give_up()
            elif time.monotonic() - self._since.setdefault(name, time.monotonic()) > SEEN_SECONDS:
                self.lost[name] = ended[name] or "its task has ended without it"
                self._settle(name, f"not done: {self.lost[name]}")

    def _settle(self, name: str, what: str) -> None:
        self.settled.add(name)
        self.worker.retry.discard(name)
        self.worker.show_ended(self.jobs[name], what)

    def _give_up(self) -> None:
        """Start no other job; those that run are saved."""
        self.waiting = []
        self.engine.cancel()
        self.settled = set(self.jobs)
