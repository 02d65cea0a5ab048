"""TensorBoard events: one run in TensorBoard for a run, one point for each tag and step, also after a resume.

Records are built with TensorBoard's own parts and written straight from the training process. PyTorch's SummaryWriter
hands them to a thread instead: seven times slower on ten scalars, and on a full disk that thread dies with a traceback.
"""
# pyright: reportAttributeAccessIssue=false
# (protobuf makes its classes at run time)

import io
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.loggers.append_only_file import AppendOnlyFile
from deeptrain.loggers.logger import GAP, Logger, validated
from deeptrain.report import image_grid
from deeptrain.schema import format_value

EVENTS = "events.out.tfevents."
SECONDS = 1.0  # between two writes of points: built one by one, with all their code out of the caches, they cost double


class TensorBoard(Logger):
    """Appends scalars, images and hyper-parameters to one event file a session.

    step: the step that the run goes on from. Readers drop what earlier sessions, killed after their last checkpoint,
    wrote after it. The first session marks its step 0 too: one of TensorBoard's readers ignores a run's first
    mark (tensorboard#4763). A failing disk calls `warn` once and never stops a training.

    Points are written once a second, together; `flush` before a checkpoint, which says that what came before is kept.

    metrics: the columns of metrics.csv. charts: the metrics that get a chart of train and val together.
    initial_loss: where the curve of the training loss begins.
    """

    def __init__(
        self,
        run_dir: Path,
        step: int = 0,
        warn: Callable[[str], Any] = warnings.warn,
        metrics: Sequence[str] = (),
        charts: Sequence[str] = (),
        initial_loss: Mapping[str, float] | None = None,
    ):
        folder, first_step = Path(run_dir).absolute(), step and step + 1
        folder.mkdir(parents=True, exist_ok=True)
        earlier = [path.name for path in folder.glob(f"{EVENTS}*")]
        self.resumed = first_step > 0 and bool(earlier)  # what is said once a run is in an earlier file
        self._described = self.resumed
        self._metrics, self._charts, self._initial_loss = metrics, charts, initial_loss
        self._name = f"{folder.parent.name}/{folder.name}"
        self._points: list[tuple[float, int, Mapping[str, float]]] = []  # not yet written: time, step, values
        self._written = 0.0  # when points were written last
        self._file = AppendOnlyFile(folder / f"{EVENTS}{_stamp(earlier)}", warn)
        self._write({"file_version": "brain.Event:2"})
        self.truncate_from(first_step)

    def describe(self, settings: Mapping[str, Any], samples: np.ndarray, step: int) -> None:
        if not self.resumed:
            self.image("samples", samples, step)
            self.hparams(settings)
            self.layout()
            if self._initial_loss and not step:
                self.scalars({"loss/train": self._initial_loss["train"]}, 0)

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        self.scalars(values, step)

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self.scalars(validated(row), step)

    def log_layers(self, row: Mapping[str, float], step: int) -> None:
        looked = ("dead/", "activation_std/")  # ratios were in log points
        self.scalars({f"vitals/{tag}": value for tag, value in row.items() if tag.startswith(looked)}, step)

    def log_figures(self, figures: Mapping[str, Path], step: int) -> None:
        """Add PNG files, a step after the last one: a run that goes on drops them, for every reader."""
        from PIL import Image

        for name, path in figures.items():
            with Image.open(path) as picture:
                size = picture.height, picture.width, len(picture.getbands())
            self._image(name, size, path.read_bytes(), step + 1)

    def truncate(self, step: int) -> None:
        self.truncate_from(step + 1)

    def truncate_from(self, first_step: int) -> None:
        """Drop, for every reader, what has been written from a step on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.flush()
        self._write({"step": first_step, "session_log": SessionLog(status=SessionLog.START)})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to the curve of each tag."""
        now = time.time()
        self._points.append((now, step, values))
        if not 0 <= now - self._written < SECONDS:
            self._written = now
            self.flush()

    def flush(self) -> None:
        """Write the points that are held."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points, self._points = self._points, []
        events = []
        for at, step, values in points:
            curves = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
            events.append({"wall_time": at, "step": step, "summary": Summary(value=curves)})
        self._write(*events)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add a picture, uint8 (H, W, 3)."""
        self._image(tag, image.shape, image_grid.encode(image), step)

    def layout(self) -> None:
        """Put train, train_clean and val of each metric into one chart of the tab CUSTOM SCALARS."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.plugins.custom_scalar import metadata
        from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

        lines = {name: [column for column in self._metrics if column.startswith(f"{name}/")] for name in self._charts}
        lines |= {"gap in points of accuracy": [GAP]} if "accuracy/train_clean" in self._metrics else {}
        charts = [  # a tag is a regular expression
            Chart(title=name, multiline=MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags]))
            for name, tags in lines.items()
        ]
        content = Layout(category=[Category(title="train and val", chart=charts)]).SerializeToString()
        tensor = TensorProto(dtype=DT_STRING, string_val=[content])
        facts = metadata.create_summary_metadata()
        value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=facts)
        self._write({"step": 0, "summary": Summary(value=[value])})

    def hparams(self, settings: Mapping[str, Any]) -> None:
        """Write, once a run, the settings for the HPARAMS tab, which compares the runs of a sweep.

        No list of columns is written: TensorBoard would take the first run's for all of them. Without one it shows
        every setting that any run has. Those that differ come first, then the newest value of each curve.
        """
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        if not self._described:
            values = {name: _hparam(value) for name, value in settings.items()}
            self._write({"step": 0, "summary": hparams_pb(values, trial_id=self._name)})
        self._described = True

    def files(self) -> list[Path]:
        """Return the files of this session and of those before."""
        return sorted(self._file.path.parent.glob(f"{EVENTS}*")) if self._file.is_whole else []

    def close(self) -> None:
        """Write what is held, and once more try to write what a full disk has kept waiting."""
        self.flush()

    def _image(self, tag: str, shape: tuple[int, ...], png: bytes, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width, channels = shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
        self._write({"step": step, "summary": Summary(value=[Summary.Value(tag=tag, image=image)])})

    def _write(self, *events: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(Event(**{"wall_time": time.time(), **event}).SerializeToString())
        self._file.add(records.getvalue())


def _stamp(earlier: Iterable[str]) -> int:
    """Return the time in microseconds, or later where clocks differ: readers take files in the order of their names."""
    stamps = [int(stamp) for name in earlier if (stamp := name.removeprefix(EVENTS).split(".")[0]).isdecimal()]
    return max([time.time_ns() // 1000, *(stamp + 1 for stamp in stamps)])


def _hparam(value: Any) -> str | int | float:
    """Keep a number; write anything else as a short text, as on the command line."""
    if type(value) in (int, float):
        return value
    text = format_value(value)
    return text if len(text) <= 60 else text[:59] + "…"
