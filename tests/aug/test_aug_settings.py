"""`probability` and `until` from the command line: checked like any setting, and not passed to the constructor."""

import pytest

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError

TINY = ["data=synthetic", "data.shape=[3,8,8]", "data.size=40", "model=fcn", "model.hidden=[8]", "batch_size=8"]
OWN = """
class Plain:
    def __init__(self, *, strength: float = 1.0):
        self.strength = strength

    def __call__(self, images, targets, rng):
        return images, targets

class Rare(Plain):
    def __init__(self, *, probability: float = 0.5):
        self.rate = probability
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["aug.mixup.until=2"], "aug.mixup.until=2: must be >= 0 and <= 1"),
        (["aug.mixup.probability=-1"], "aug.mixup.probability=-1: must be >= 0 and <= 1"),
        (["aug.mixup.until=late"], "aug.mixup.until=late: must be a number"),
        (["aug.mixup.untill=0.9"], "aug.mixup.untill=0.9: no such setting; did you mean aug.mixup.until?"),
        (["aug.cutout.until=0.9"], "aug.cutout.until=0.9: a setting of"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(UsageError) as error:
        compose_run([*TINY, "aug=mixup", *overrides])
    assert str(error.value).startswith(message)


def test_they_reach_the_pipeline():
    overrides = ["aug=[cutout,mixup]", "aug.mixup.until=0.9", "aug.cutout.probability=0.25"]
    cutout, mixup = build.open_setup(compose_run([*TINY, *overrides])).pipeline.augmentations
    assert (cutout.probability, cutout.until, cutout.mixes) == (0.25, 1.0, False)
    assert (mixup.probability, mixup.until, mixup.mixes) == (1.0, 0.9, True)


def test_a_class_of_ones_own_needs_neither(tmp_path, monkeypatch):
    """Without the two settings it is always applied. A `probability` of its constructor goes to the constructor."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_augs.py").write_text(OWN)
    folder = tmp_path / "configs" / "aug"
    folder.mkdir(parents=True)
    (folder / "plain.yaml").write_text("# mine\nplain:\n  _target_: my_augs.Plain\n  strength: 2.0\n")
    (folder / "late.yaml").write_text("# mine\nlate:\n  _target_: my_augs.Plain\n  strength: 1.0\n  until: 0.5\n")
    (folder / "rare.yaml").write_text("# mine\nrare:\n  _target_: my_augs.Rare\n  probability: 0.1\n  until: 0.9\n")
    overrides = [*TINY, f"--config-dir={tmp_path / 'configs'}", "aug=[plain,late,rare]", "allow_targets=[my_augs]"]
    plain, late, rare = build.open_setup(compose_run(overrides)).pipeline.augmentations
    assert (plain.probability, plain.until, plain.augmentation.strength) == (1.0, 1.0, 2.0)
    assert (late.probability, late.until) == (1.0, 0.5)
    assert (rare.probability, rare.until, rare.augmentation.rate) == (1.0, 0.9, 0.1)


def test_until_ends_mixing_in_a_run():
    """In the second half of the steps targets are class ids again."""
    overrides = ["aug=mixup", "aug.mixup.until=0.5", "epochs=2", "data.val_fraction=0.2"]
    trainer = build.trainer(build.open_setup(compose_run([*TINY, *overrides])))
    target_dims, train = [], trainer.pipeline.train

    def record(*batch):
        images, targets = train(*batch)
        target_dims.append(targets.ndim)
        return images, targets

    trainer.pipeline.train = record
    trainer.fit()
    half = len(target_dims) // 2
    assert target_dims == [2] * half + [1] * half
