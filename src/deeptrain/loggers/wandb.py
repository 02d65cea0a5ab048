"""Weights & Biases: one run there for a run, also after a resume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeptrain.loggers.logger import Logger, read_run_id, validated, write_run_id


class WandB(Logger):
    """Logs points by step. A resumed run goes on in its W&B run, whose id is in the file wandb.json.

    W&B takes no point of a step before its last one. So what a killed run logged after its last checkpoint is not
    logged a second time: a resumed run repeats it bit for bit.
    """

    requires = "wandb"

    def __init__(
        self,
        run_dir: Path,
        step: int = 0,
        title: str = "",
        *,
        project: str = "deeptrain",
        entity: str | None = None,
        mode: Literal["online", "offline"] = "online",
    ):
        import wandb  # pyright: ignore[reportMissingImports]

        saved = Path(run_dir) / "wandb.json"
        known = read_run_id(saved) if step and saved.is_file() else None
        self._image = wandb.Image
        self._run = wandb.init(
            project=project, entity=entity, mode=mode, dir=str(run_dir), name=title[:120], id=known, resume="allow"
        )
        write_run_id(saved, self._run.id)

    def describe(self, settings: Mapping[str, Any], samples: np.ndarray, step: int) -> None:
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.log({"samples": self._image(samples)}, step=step)

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self._run.log(validated(row) | {"epoch": row["epoch"]}, step=step)

    def close(self) -> None:
        self._run.finish()
