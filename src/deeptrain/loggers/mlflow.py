"""MLflow tracking: one MLflow run for a run, one point for each tag and step, also after a resume."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.loggers.logger import Logger, read_run_id, validated, write_run_id
from deeptrain.schema import format_value

MAX_BATCH = 1000  # points that MLflow takes at once
SECONDS = 1.0  # between two writes


class MLflow(Logger):
    """Writes points once a second. A resumed run goes on in its MLflow run, whose id is in the file mlflow.json.

    MLflow cannot drop points. So what a killed run logged after its last checkpoint is not logged a second time: a
    resumed run repeats it bit for bit. Only on_nan=rollback leaves the old points of the steps that it repeats.
    """

    requires = "mlflow"

    def __init__(
        self,
        run_dir: Path,
        step: int = 0,
        title: str = "",
        *,
        tracking_uri: str | None = None,
        experiment: str = "deeptrain",
    ):
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        if tracking_uri is not None and tracking_uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow asks whether files are meant: they are
        self._metric, self._param, self._client = Metric, Param, MlflowClient(tracking_uri)
        self._points: list[tuple[str, float, int, int]] = []  # tag, value, time in ms, step
        self._written = 0.0
        saved = Path(run_dir) / "mlflow.json"
        if step and saved.is_file():
            self.run_id = read_run_id(saved)
            self._last = self._last_steps()
            return
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        self.run_id = self._client.create_run(experiment_id, run_name=title[:250] or None).info.run_id
        write_run_id(saved, self.run_id)
        self._last: dict[str, int] = {}

    def describe(self, settings: Mapping[str, Any], samples: np.ndarray, step: int) -> None:
        params = [self._param(name, format_value(value)[:500]) for name, value in settings.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        now = time.time()
        points = [(tag, float(value), int(1000 * now), step) for tag, value in values.items()]
        self._points += [point for point in points if step > self._last.get(point[0], -1)]
        if now - self._written >= SECONDS:
            self.flush()

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self.log_step(validated(row) | {"epoch": row["epoch"]}, step)

    def flush(self) -> None:
        self._written = time.time()
        points, self._points = self._points, []
        for start in range(0, len(points), MAX_BATCH):
            batch = [self._metric(*point) for point in points[start : start + MAX_BATCH]]
            self._client.log_batch(self.run_id, metrics=batch)

    def close(self) -> None:
        self.flush()
        self._client.set_terminated(self.run_id)

    def _last_steps(self) -> dict[str, int]:
        """Return the last step of each tag that MLflow has."""
        tags = self._client.get_run(self.run_id).data.metrics
        return {tag: max(point.step for point in self._client.get_metric_history(self.run_id, tag)) for tag in tags}
