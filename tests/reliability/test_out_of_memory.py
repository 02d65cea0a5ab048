"""Memory that does not suffice: told in a line with what to change, or got along with by accumulate=auto."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.run import artifacts
from deeptrain.runtime.device import is_out_of_memory
from deeptrain.runtime.world import World
from deeptrain.training import checkpoint
from deeptrain.training.trainer import Trainer

pytestmark = pytest.mark.slow

WORDS = ["data=synthetic", "data.shape=[3,8,8]", "data.size=160", "model=fcn", "model.hidden=[16]", "model.norm=none"]
WORDS += ["batch_size=32", "epochs=2", "threads=1", "device=cpu", "loggers=none", "aug=[cutout,mixup]"]
ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
}


@pytest.fixture
def small_memory(monkeypatch):
    """Let only so many images go through the network at once."""

    def only(images: int, error: Exception, since: int = 0) -> None:
        micro_batches = World.micro_batches

        steps = itertools.count()

        def some(self, *batch):
            step = next(steps)
            for inputs, wanted, weight in micro_batches(self, *batch):
                yield inputs, wanted, weight
                if len(inputs) > images and step >= since:  # after its pass: there is a gradient already
                    raise error

        monkeypatch.setattr(World, "micro_batches", some)

    return only


def fitted(*words: str) -> Trainer:
    trainer = build.trainer(build.open_setup(compose_run([*WORDS, *words])))
    trainer.fit()
    return trainer


@pytest.mark.parametrize("kind", ERRORS)
def test_it_is_told_in_a_line_with_what_to_change(kind, small_memory, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)
    small_memory(16, ERRORS[kind], since=6)
    assert train([*WORDS, "dir=run", "checkpoint.every_steps=2"]) == 1
    reason = json.loads(Path("run/result.json").read_text())["reason"]
    assert reason.startswith("out of memory in step 7: ") and "\n" not in reason
    for said in ("accumulate=auto", "batch_size=16", "precision=bf16", "device"):
        assert said in reason
    assert "Traceback" not in capsys.readouterr().out + Path("run/run.log").read_text()
    assert checkpoint.load(Path("run/checkpoints/last.pt"))["progress"]["step"] == 6
    assert train(["resume=run", "accumulate=auto"]) == 0
    assert "batches go in 2 pieces now" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["sam=0.05"], ["average=ema", "clip_norm=1", "penalty=l2"]], ids=str)
def test_auto_takes_the_same_steps_in_pieces(words, small_memory):
    whole = fitted(*words)
    small_memory(10, ERRORS["gpu"])
    pieces = fitted(*words, "accumulate=auto")
    assert pieces.accumulate == 4 and pieces.progress.step == whole.progress.step
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(pieces.model.state_dict()[name], value, atol=1e-5, rtol=1e-5)
    assert pieces.progress.metrics["loss/val"] == pytest.approx(whole.progress.metrics["loss/val"], abs=1e-5)


def test_auto_leaves_no_trace_of_the_pass_that_failed(small_memory):
    """With batch norm a batch in pieces is another step, but the same one as with that many pieces from the start."""
    four = fitted("model.norm=batch", "accumulate=4")
    small_memory(10, ERRORS["cpu"])
    auto = fitted("model.norm=batch", "accumulate=auto")
    assert all(torch.equal(value, auto.model.state_dict()[name]) for name, value in four.model.state_dict().items())


def test_a_single_image_that_is_too_much_ends_it(small_memory):
    small_memory(0, ERRORS["gpu"])
    with pytest.raises(torch.OutOfMemoryError):
        fitted("accumulate=auto")


@pytest.mark.parametrize("most", [1, 3, 7])
def test_evaluation_goes_on_in_halves(most, monkeypatch):
    trainer = build.trainer(build.open_setup(compose_run([*WORDS, "loss=mse", "data.val_fraction=0.4"])))
    measure = lambda: trainer.validator.measure(trainer.stop, 0, 0.0)  # noqa: E731
    whole, forward, sizes = measure(), trainer.model.forward, []

    def small(images):
        if len(images) > most:
            raise ERRORS["gpu"]
        sizes.append(len(images))
        return forward(images)

    monkeypatch.setattr(trainer.model, "forward", small)
    assert measure() == pytest.approx(whole, rel=1e-5) and len(sizes) > 5
    monkeypatch.setattr(trainer.model, "forward", lambda images: small(torch.cat([images] * 8)))
    with pytest.raises(torch.OutOfMemoryError):
        measure()  # a single image is too much


def test_other_errors_are_not_taken_for_it():
    assert all(map(is_out_of_memory, ERRORS.values()))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
