"""The few words of a sweep that are about the sweep, not about its runs."""

from dataclasses import dataclass
from typing import Literal

from deeptrain.schema import PositiveInt


@dataclass
class Options:
    """How a sweep goes through its jobs. No result depends on them."""

    jobs: PositiveInt | Literal["auto"] = 1  # at a time; auto: as many as there are cores, or GPUs
    fail_fast: bool = False  # stop at the first job that fails
    retry: Literal["failed"] | None = None  # give failed jobs another attempt
    dry_run: bool = False  # list the jobs and estimate the time
