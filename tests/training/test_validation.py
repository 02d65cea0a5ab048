"""The first validations: batch norms are measured anew for them, and the training does not change by that."""

import copy

import pytest
import torch

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.runtime.signals import Interrupted
from deeptrain.training.validation import evaluate

RUN = "data=synthetic data.shape=[3,8,8] data.size=160 data.num_classes=4 batch_size=32 epochs=2 model.blocks=[1]"
RUN += " model.widths=[8] validate.clean_images=0 loggers=none"


def make(*words):
    return build.trainer(build.open_setup(compose_run([*RUN.split(), *words])))


def train(trainer):
    rows, saved = [], []
    trainer.logger.log_validation = lambda progress, metrics, *_: rows.append(metrics)
    trainer.checkpoints.save = lambda name, state: saved.append((name, copy.deepcopy(state)))
    trainer.fit()
    return rows, [state for name, state in saved if name == "best"][-1], saved[-1][1]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_the_training_is_the_same_and_the_validation_better(average, monkeypatch):
    words = [f"average={average}", *(["average.start=0.5"] if average == "swa" else [])]
    rows, _, last = train(make(*words))
    monkeypatch.setattr("deeptrain.training.validation.remembers_start", lambda model: False)
    old_rows, _, old_last = train(make(*words))
    assert same(last["model"], old_last["model"]) and same(last["average"] or {}, old_last["average"] or {})
    assert rows[0]["loss/train"] == old_rows[0]["loss/train"]
    assert rows[0]["loss/val"] < old_rows[0]["loss/val"]
    if average == "ema":
        assert rows[0]["loss/val_average"] < old_rows[0]["loss/val_average"]


@pytest.mark.parametrize("average", ["none", "ema"])
def test_the_best_weights_are_those_that_were_validated(average):
    trainer = make(f"average={average}", "monitor=loss/val")
    rows, best, last = train(trainer)
    end = "_average" if best["weights"] == "average" else ""
    losses = [row[f"loss/val{end}"] for row in rows]
    trainer.model.load_state_dict(best["model"])
    validator = trainer.validator
    measured = evaluate(trainer.model, validator.loader.epoch(0), validator.pipeline, validator.runtime, validator.loss)
    assert measured["loss"] == min(losses) == trainer.progress.best
    assert not torch.equal(best["model"]["stem.2.running_mean"], last["model"]["stem.2.running_mean"])


def test_a_stop_while_the_norms_are_measured_leaves_the_running_statistics():
    trainer = make()
    before = copy.deepcopy(trainer.model.state_dict())

    def stopped(batches):
        yield next(iter(batches))
        raise Interrupted

    trainer.stop.stoppable = stopped
    with pytest.raises(Interrupted):
        trainer.validator.measure(trainer.stop, 0, 0.0)
    assert same(trainer.model.state_dict(), before)


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ([], 144),
        (["batch_size=2"], 0),  # 72 steps an epoch
        (["batch_size=2", "validate.every_steps=10"], 144),
        (["batch_size=2", "limit_steps=20"], 144),
        (["batch_size=2", "max_seconds=60"], 144),
        (["batch_size=2", "model.norm_momentum=0.01"], 144),
        (["model.norm=group"], 0),
        (["model.norm=group", "max_seconds=60"], 0),
    ],
)
def test_images_for_the_norms_are_kept_only_where_a_validation_may_be_early(words, images):
    loader = make(*words).validator.bn_loader
    assert (loader.num_images if loader else 0) == images
