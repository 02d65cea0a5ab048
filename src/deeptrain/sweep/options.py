"""The few words of a sweep that are about the sweep, not about its runs."""

from dataclasses import dataclass
from typing import Literal

from deeptrain.schema import PositiveInt


@dataclass
class Options:
    """How a sweep goes through its jobs. No result depends on them."""

    jobs: PositiveInt | Literal["auto"] | None = None  # at a time; auto: by cores or GPUs; None: 1, on a cluster all
    fail_fast: bool = False  # stop at the first job that fails
    retry: Literal["failed"] | None = None  # give failed jobs another attempt
    dry_run: bool = False  # list the jobs and estimate the time
    launcher: Literal["local", "slurm", "ray"] = "local"  # who places the jobs: this machine, or a cluster
