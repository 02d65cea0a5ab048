"""launcher=ray: each job of a sweep is a task on a Ray cluster, which queues them by CPUs and GPUs."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deeptrain.errors import UsageError
from deeptrain.schema import NonNegativeFloat, PositiveFloat
from deeptrain.sweep.cluster import Task


@dataclass
class RayOptions:
    """Where the cluster is, and what each job needs of it. A part of a GPU is shared by as many jobs as it holds."""

    address: str = field(default="auto", metadata={"key": "launcher.address"})  # local: start one on this machine
    cpus: PositiveFloat | None = field(default=None, metadata={"key": "launcher.cpus"})  # None: the threads of a job
    gpus: NonNegativeFloat = field(default=0.0, metadata={"key": "launcher.gpus"})


class Ray:
    """Tasks on a Ray cluster. at_once: how many it is given at a time; None: all.

    Raises UsageError if Ray or the cluster is not there.
    """

    def __init__(self, options: RayOptions, threads: int, at_once: int | None):
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UsageError(["launcher=ray: needs the package ray; pip install 'deeptrain[ray]'"]) from None
        self._ray, self.options, self.at_once = ray, options, at_once
        self.cpus = options.cpus or float(threads)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
        if not ray.is_initialized():
            try:
                ray.init(
                    address=options.address, log_to_driver=False, logging_level=logging.ERROR, namespace="deeptrain"
                )
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                remedy = "start a cluster with ray start --head, or write launcher.address=local for this machine"
                raise UsageError([f"launcher.address={options.address}: no Ray cluster ({reason}); {remedy}"]) from None
        self._run = ray.remote(num_cpus=self.cpus, num_gpus=options.gpus, max_retries=0)(_run)
        self._refs: dict[str, Any] = {}
        self._ended: dict[str, str] = {}

    def submit(self, tasks: Sequence[Task]) -> None:
        self._refs |= {task.name: self._run.remote(task) for task in tasks}

    def ended(self) -> dict[str, str]:
        open_refs = {ref: name for name, ref in self._refs.items() if name not in self._ended}
        ready, _ = self._ray.wait(list(open_refs), num_returns=len(open_refs), timeout=0) if open_refs else ([], [])
        self._ended |= {open_refs[ref]: self._end(ref) for ref in ready}
        return self._ended

    def _end(self, ref: Any) -> str:
        """Say what went wrong with a task itself: a lost node, a cancelled one, a folder that is not there."""
        try:
            self._ray.get(ref)
        except Exception as error:
            cause = getattr(error, "cause", None) or error
            return " ".join(str(cause).split())[:200] or type(error).__name__
        return ""

    def interrupt(self) -> list[str]:
        """Drop what waits, and wait until the running jobs have saved."""
        self.cancel()
        while len(self.ended()) < len(self._refs):
            time.sleep(0.2)
        return []

    def cancel(self) -> None:
        for name in self._refs.keys() - self.ended().keys():
            self._ray.cancel(self._refs[name], recursive=False)

    def lines(self) -> list[str]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        total, needed = self._ray.cluster_resources(), {"CPU": self.cpus, "GPU": self.options.gpus}
        has = f"{len(nodes)} node{'' if len(nodes) == 1 else 's'} with {total.get('CPU', 0):g} CPUs and "
        has += f"{total.get('GPU', 0):g} GPUs"
        fits = any(all(node["Resources"].get(kind, 0) >= count for kind, count in needed.items()) for node in nodes)
        lines = [f"ray     {has}; cpus={self.cpus:g} gpus={self.options.gpus:g} each"]
        return lines if fits else [*lines, "warning: no node has that now, so the jobs wait until one joins"]


def _run(task: Task) -> None:
    task()
