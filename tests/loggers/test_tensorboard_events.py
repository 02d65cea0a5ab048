"""TensorBoard's own readers see one run, one point for each tag and step, and settings that can be compared."""

import io
import time

import numpy as np
import pytest

from deeptrain.loggers.console import Console
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.loggers.tensorboard import TensorBoard
from deeptrain.training.progress import Plan, Progress

PICTURE = np.zeros((4, 4, 3), np.uint8)


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def curve(folder, tag="loss/val"):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def session(folder, first_step, steps, scale=1.0):
    board = TensorBoard(folder, max(first_step - 1, 0))
    for step in steps:
        board.scalars({"loss/val": scale * step, "rate/lr": 0.5}, step)
    board.flush()
    return board


def test_points_are_on_disk_a_second_later_at_a_checkpoint_and_before_anything_else(tmp_path, monkeypatch):
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    board = TensorBoard(tmp_path)
    seen = []
    for step, passes in enumerate((0, 0.4, 0.4, 0.4, -7200, 0.4)):  # the fifth time, the clock is put back
        now += passes
        board.scalars({"loss/val": float(step), "rate/lr": 0.5}, step)
        seen.append(len(curve(tmp_path)))
    assert seen == [1, 1, 1, 4, 5, 5]
    board.flush()
    assert curve(tmp_path) == [(step, float(step)) for step in range(6)]
    assert read(tmp_path).Tags()["scalars"] == ["loss/val", "rate/lr"]
    board.scalars({"loss/val": 6.0}, 6)
    board.truncate_from(4)
    assert [step for step, _ in curve(tmp_path)] == list(range(4))
    board.scalars({"loss/val": 4.0}, 4)
    board.close()
    assert [step for step, _ in curve(tmp_path)] == list(range(5))


@pytest.mark.parametrize("kills", [[6], [6, 4], [8, 8, 2]])
def test_one_point_per_tag_and_step_after_resumes(tmp_path, kills):
    session(tmp_path, 0, range(10), scale=-1)
    for first in kills[:-1]:
        session(tmp_path, first, range(first, first + 3), scale=-2)
    session(tmp_path, kills[-1], range(kills[-1], 12))
    points = dict(curve(tmp_path))
    assert [step for step, _ in curve(tmp_path)] == list(range(12))
    assert all(points[step] == step for step in range(kills[-1], 12))


def test_a_torn_record_is_no_obstacle_to_resuming(tmp_path):
    session(tmp_path, 0, range(10))
    events = next(tmp_path.iterdir())
    events.write_bytes(events.read_bytes()[:-7])
    session(tmp_path, 7, range(7, 12))
    assert [step for step, _ in curve(tmp_path)] == list(range(12))


def test_sessions_are_read_in_order_when_the_clock_goes_back(tmp_path, monkeypatch):
    session(tmp_path, 0, range(6), scale=-1)
    monkeypatch.setattr("time.time_ns", lambda: 10**18)
    session(tmp_path, 3, range(3, 6))
    assert curve(tmp_path) == [(0, 0), (1, -1), (2, -2), (3, 3), (4, 4), (5, 5)]


def test_a_run_is_one_run(tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    for name in ("aug=none,seed=0", "aug=mixup,seed=0"):
        board = session(tmp_path / name, 0, range(3))
        board.hparams({"aug": name})
        board.image("samples", np.zeros((4, 4, 3), np.uint8), 0)
        session(tmp_path / name, 2, range(2, 5)).hparams({"aug": name})
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload().Runs()
    assert sorted(runs) == ["aug=mixup,seed=0", "aug=none,seed=0"]


def test_hyper_parameters_are_written_once_and_readable(tmp_path):
    from tensorboard.plugins.hparams import metadata

    settings = {
        "aug": ["cutout", "mixup"],
        "optimizer.lr": 0.1,
        "optimizer.nesterov": True,
        "resume": None,
        "depth": 20,
    }
    board = TensorBoard(tmp_path)
    board.hparams(settings)
    board.hparams(settings)
    TensorBoard(tmp_path, step=4).hparams(settings)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert content.count(metadata.SESSION_START_INFO_TAG.encode()) == 1
    plugin = read(tmp_path).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(plugin).hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    assert values == {
        "aug": "[cutout,mixup]",
        "optimizer.lr": 0.1,
        "optimizer.nesterov": "true",
        "resume": "null",
        "depth": 20,
    }


def test_a_run_killed_before_its_first_checkpoint_describes_itself_again(tmp_path):
    from tensorboard.plugins.hparams import metadata

    TensorBoard(tmp_path).hparams({"seed": 0})
    TensorBoard(tmp_path).hparams({"seed": 0})  # the mark of the second session voids what the first wrote
    assert read(tmp_path).SummaryMetadata(metadata.SESSION_START_INFO_TAG)


def test_an_image_comes_back_as_it_was(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    TensorBoard(tmp_path).image("samples", picture, 3)
    (event,) = read(tmp_path).Images("samples")
    assert (event.step, event.height, event.width) == (3, 5, 7)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)


def run(folder, first_step, steps):
    """Log as a run does that begins or is resumed at a step."""
    folder.mkdir(exist_ok=True)
    record = RunLogger(Console(io.StringIO()), [TensorBoard(folder, first_step)])
    record.start(Plan(), Progress())
    record.describe({"seed": 0}, PICTURE, first_step)
    for step in steps:
        means = {"loss": 1.0, "accuracy": 0.5, "top5": 0.9}
        record.log_step(Progress(step=step, step_in_epoch=step), means, 0.1, 1.0)
    record.flush()  # as before a checkpoint: from then on they are kept


def served(folder, last_step):
    """Return the steps of pictures and of points as TensorBoard's data server, its default reader, gives them out."""
    pytest.importorskip("tensorboard_data_server")
    from tensorboard.context import RequestContext
    from tensorboard.data import server_ingester
    from tensorboard.util.grpc_util import ChannelCredsType

    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(folder.parent),
        reload_interval=1,
        channel_creds_type=ChannelCredsType.LOCAL,
    )
    ingester.start()
    asked = {"ctx": RequestContext(), "experiment_id": "", "downsample": 1000}
    read = ingester.data_provider
    for _ in range(100):  # it answers before it has read everything
        scalars = read.read_scalars(plugin_name="scalars", **asked)
        points = [point.step for point in scalars.get(folder.name, {}).get("loss/train", [])]
        if last_step in points:
            break
        time.sleep(0.1)
    pictures = read.read_blob_sequences(plugin_name="images", **asked)[folder.name]["samples"]
    return [picture.step for picture in pictures], points


@pytest.mark.parametrize("starts", [[0, 0], [0, 3], [0, 0, 3, 3, 5]])
def test_one_picture_and_one_point_per_step_for_every_reader(tmp_path, starts):
    folder = tmp_path / "run"
    for first in starts:
        run(folder, first, range(first + 1, first + 6))
    expected = list(range(1, starts[-1] + 6))
    assert [image.step for image in read(folder).Images("samples")] == [0]
    assert [step for step, _ in curve(folder, "loss/train")] == expected
    assert served(folder, expected[-1]) == ([0], expected)


def test_a_run_that_logs_to_tensorboard_only_since_its_resume_has_its_picture_too(tmp_path):
    run(tmp_path, 5, range(6, 8))
    run(tmp_path, 7, range(8, 10))
    assert [image.step for image in read(tmp_path).Images("samples")] == [5]


COLUMNS = [f"{name}/{part}" for part in ("train", "train_clean", "val") for name in ("loss", "accuracy", "top5")]


def test_train_and_val_of_each_metric_share_a_chart_and_the_curve_begins_before_the_first_step(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    initial = {"train": 2.5, "equal_logits": 2.3}
    board = TensorBoard(tmp_path, metrics=["epoch", *COLUMNS], charts=["loss", "accuracy"], initial_loss=initial)
    board.describe({"seed": 0}, PICTURE, 0)
    board.log_step({"loss/train": 2.0}, 5)
    board.close()
    found = read(tmp_path)
    (event,) = found.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert list(charts) == ["loss", "accuracy", "gap in points of accuracy"]
    assert charts["loss"] == ["^loss/train$", "^loss/train_clean$", "^loss/val$"]
    assert [(point.step, point.value) for point in found.Scalars("loss/train")] == [(0, 2.5), (5, 2.0)]


def test_a_validation_logs_the_gap_in_points_and_the_best_so_far(tmp_path):
    record = RunLogger(Console(io.StringIO()), [TensorBoard(tmp_path)])
    record.start(Plan(), Progress())
    for step, val, best in ((1, 0.75, 0.75), (2, 0.5, 0.75)):
        progress = Progress(epoch=step, step=step, best=best)
        record.log_validation(progress, {"accuracy/train_clean": 0.875, "accuracy/val": val}, 0.1, False, 0.0)
    record.close()
    assert curve(tmp_path, "gap/accuracy_points") == [(1, 12.5), (2, 37.5)]
    assert curve(tmp_path, "Best/accuracy") == [(1, 0.75), (2, 0.75)]
    tags = read(tmp_path).Tags()["scalars"]
    assert sorted(tags)[0] == "Best/accuracy", "the first column of HPARAMS"
    assert set(record.history[0]) & {"gap/accuracy_points", "Best/accuracy"} == set(), "metrics.csv has no such columns"


def test_the_figures_of_an_end_are_there_once_and_void_when_the_run_goes_on(tmp_path):
    from deeptrain.report.image_grid import save

    save(tmp_path / "curves.png", PICTURE)
    for first, last in ((0, 4), (4, 4), (4, 9)):  # finished, redrawn, trained longer
        board = TensorBoard(tmp_path / "run", step=first)
        board.log_figures({"curves": tmp_path / "curves.png"}, last)
        board.close()
        images = [(image.step, image.height, image.width) for image in read(tmp_path / "run").Images("curves")]
        assert images == [(last + 1, 4, 4)]


def test_an_empty_group_is_called_none():
    from deeptrain.config.compose import compose_run
    from deeptrain.run.artifacts import _hyperparameters

    settings = _hyperparameters(compose_run(["data=synthetic", "penalty=none", "average=ema"]))
    assert {name: settings[name] for name in ("aug", "penalty", "gradient", "average")} == {
        "aug": "none",
        "penalty": "none",
        "gradient": "none",
        "average": "ema",
    }
    assert {} not in settings.values()


def test_a_full_disk_stops_nothing_and_loses_no_point(tmp_path, full_disk):
    warnings = []
    board = TensorBoard(tmp_path, warn=warnings.append)
    board.scalars({"loss/val": 1.0}, 1)
    with full_disk():
        board.scalars({"loss/val": 2.0}, 2)
        board.image("samples", np.zeros((4, 4, 3), np.uint8), 2)
        board.hparams({"seed": 0})
        board.close()
    board.scalars({"loss/val": 3.0}, 3)
    board.flush()
    assert curve(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert len(warnings) == 1 and len(list(tmp_path.iterdir())) == 1
