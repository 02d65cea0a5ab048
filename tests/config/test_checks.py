"""What cannot work is refused, what is pointless is said in a sentence, and what is in order is met with silence."""

import functools
import re
from dataclasses import replace

import pytest
from PIL import Image

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.config.checks import ERRORS, WARNINGS, Facts, check
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.run import dry_run
from deeptrain.runtime.resources import CONFIGS

GREY = Facts((1, 8, 8), [30, 40, 50, 60], 16, "cpu")
COLOUR = Facts((3, 32, 32), [100] * 10, 100, "cpu")
LARGE = Facts((3, 224, 224), [100] * 10, 100, "cpu", drawn=True)
CHARACTERS = replace(GREY, characters=True)
NO_JITTER = " ".join(f"aug.color_jitter.{name}=0" for name in ("brightness", "contrast", "saturation"))

REFUSED = [
    ("data.folds=5", None, "data.folds=5: says not which fold is held out; write folds=5 for each in turn"),
    ("data.fold=2", None, "data.fold=2: must be a number below data.folds"),
    ("data.folds=5 data.fold=0 overfit=9", None, "data.folds=5: does not go with overfit=9, which holds out no image"),
    ("init_from=run model=torchvision model.weights=DEFAULT", None, "starts from model.weights=DEFAULT; leave one"),
    ("early_stop.patience=5 epochs=5", None, "early_stop.patience=5: must be shorter than the run (epochs=5,"),
    ("early_stop.patience=2 epochs=9 validate.every_epochs=5", None, "validated every 5)"),
    ("batch_size=4 accumulate=8", None, "accumulate=8: must be at most batch_size=4"),
    ("accumulate=101", COLOUR, "accumulate=101: must be at most batch_size=100"),
    ("model=fcn model.norm=batch batch_size=1", None, "cannot norm a single image"),
    ("model=fcn model.norm=batch accumulate=100", COLOUR, "batch_size=100, accumulate=100"),
    ("model=fcn model.norm=batch batch_size=5 accumulate=5", None, "cannot norm a single image"),
    ("sync_batch_norm=true accumulate=2", COLOUR, "sync_batch_norm=true: does not go with accumulate=2"),
    ("checkpoint.snapshots=4 epochs=30 schedule=cyclic", None, "checkpoint.snapshots=4: needs epochs that it divides"),
    (
        "checkpoint.snapshots=2 epochs=6 validate.every_epochs=2 schedule=cyclic",
        None,
        "and a validation at each part's",
    ),
    ("checkpoint.snapshots=5 limit_steps=9", None, "checkpoint.snapshots=5: goes by epochs; leave out limit_steps"),
    ("sam=0.05 precision=fp16", None, "gradient=sam: does not go with precision=fp16"),
]

POINTLESS = [
    ("data.folds=5 data.fold=0 data.val_fraction=0.3", None, "data.val_fraction has no effect: data.folds=5 holds out"),
    ("checkpoint.snapshots=5", None, "write schedule=cyclic"),
    ("checkpoint.snapshots=3 schedule=cyclic", None, "checkpoint.snapshots=3 and schedule.cycles=5 should be the same"),
    ("base_batch=64", None, "base_batch=64 has no effect without scale_lr: write scale_lr=linear"),
    ("scale_lr=linear batch_size=300 schedule.warmup=0", None, "scale_lr=linear takes a high rate from the first step"),
    ("finetune=head", None, "finetune=head keeps random weights as they are, all but the last layer's: write"),
    ("finetune=gradual", None, "finetune.head_only=0.1 keeps random weights as they are: write init_from=RUN"),
    ("finetune.cache=false", None, "finetune.cache=false has no effect"),
    ("finetune.freeze=[stem]", None, "finetune.freeze=[stem] keeps random weights as they are"),
    ("finetune.norms=freeze", None, "finetune.norms=freeze keeps the statistics 0 and 1 of new batch norms"),
    ("init_match=order", None, "init_match=order has no effect without a file of weights"),
    ("init_match=order finetune=head model=torchvision model.weights=DEFAULT", None, None),
    ("batch_size=1", None, "norms every image by itself"),
    ("sync_batch_norm=true", None, "sync_batch_norm=true has no effect in a single process"),
    ("data=cifar10 aug=off data.flip=true", None, "data.flip has no effect: data.augment=false (aug=off)"),
    ("data=cifar10 data.augment=false data.crop_padding=2", None, "data.crop_padding has no effect"),
    ("data=mnist data.flip=true", CHARACTERS, "data.flip=true mirrors characters"),
    ("data=cifar10", replace(COLOUR, class_names=("turn Left", "stop", "turn right")), "left and right in the names"),
    ("data=digits aug=flip", CHARACTERS, "aug=flip mirrors characters"),
    ("data=cifar10 aug=flip", None, "aug=flip mirrors again what data=cifar10 has mirrored"),
    ("data=digits aug=flip aug.flip.horizontal=0 aug.flip.vertical=0.5", CHARACTERS, "aug=flip mirrors characters"),
    ("data=cifar10 aug=random_crop", None, "data.crop_padding=4 has shifted"),
    ("data=image_folder aug=random_crop", COLOUR, "data.crop_padding=4 has shifted"),
    ("aug=flip aug.flip.horizontal=0", None, "aug=flip has no effect: aug.flip.horizontal=0 and aug.flip.vertical=0"),
    (f"aug=color_jitter {NO_JITTER}", COLOUR, "aug=color_jitter has no effect: brightness, contrast, saturation"),
    ("aug=pca_jitter aug.pca_jitter.strength=0", None, "aug=pca_jitter has no effect: aug.pca_jitter.strength=0"),
    ("aug=random_resized_crop aug.random_resized_crop.area=[1,1]", None, "aug=random_resized_crop has no effect"),
    (
        "aug=mixup_or_cutmix aug.mixup_or_cutmix.cutmix=1 aug.mixup_or_cutmix.mixup_alpha=0.4",
        None,
        "aug.mixup_or_cutmix.mixup_alpha=0.4 has no effect",
    ),
    (
        "aug=mixup_or_cutmix aug.mixup_or_cutmix.cutmix=0 aug.mixup_or_cutmix.cutmix_alpha=0.4",
        None,
        "aug.mixup_or_cutmix.cutmix_alpha=0.4 has no effect",
    ),
    ("aug=trivial_augment", GREY, "moves images by up to 32 pixels, more than their 8: take aug=randaugment"),
    (
        "aug=random_crop data.crop_padding=0",
        GREY,
        "aug.random_crop.padding=4 shifts these images by more than a quarter",
    ),
    ("aug=random_grayscale", GREY, "aug=random_grayscale has no effect: these images are grey"),
    ("aug=color_jitter", GREY, "aug.color_jitter.saturation=0.4 has no effect"),
    ("aug=color_jitter aug.color_jitter.hue=0.1", GREY, "aug.color_jitter.hue=0.1 has no effect"),
    ("aug=randaugment", GREY, "Color, has no effect"),
    ("model=vgg model.drop_connect=0.5", None, "model.drop_connect=0.5 and model.dropout=0.5 act on the same layers"),
    ("model.stochastic_depth_mode=sample", None, "has no effect while model.stochastic_depth=0"),
    ("penalty=l1 penalty.strength=0", None, "penalty=l1 has no effect: penalty.strength=0"),
    ("penalty=l2", None, "penalty=l2 and optimizer.weight_decay=0.05 both shrink the weights"),
    ("loss.class_weights=auto", COLOUR, "all classes have equally many training images"),
    ("penalty=elastic", None, "penalty=elastic and optimizer.weight_decay=0.05 both shrink the weights"),
    ("average=swa", None, "schedule=cosine ends at 0; set schedule.floor=0.3 (explain=swa)"),
    ("average=swa schedule=one_cycle", None, "schedule=one_cycle ends at 0"),
    ("average=swa model.norm=group average.bn_images=99", None, "average.bn_images=99 has no effect: model=resnet"),
    ("average=swa model=rnn average.bn_images=99", None, "model=rnn is without batch norm here"),
    ("data.whiten_eps=0.1", None, "data.whiten_eps=0.1 has no effect without data.whiten"),
    ("average=swa epochs=2 schedule=constant", COLOUR, None),
    ("average=swa epochs=3 limit_steps=19", COLOUR, "average=swa averages nothing: it starts at 0.75 of the run"),
    ("average=swa average.every_steps=15 epochs=2 schedule=constant", COLOUR, None),
    ("average=swa average.every_steps=14 epochs=2", COLOUR, "average=swa averages nothing"),
    ("data.whiten=pca", None, "components without neighbours, which model=resnet looks for"),
    ("early_stop.min_delta=0.1", None, "early_stop.min_delta=0.1 has no effect without early_stop.patience"),
    ("monitor=top5/val", GREY, "monitor=top5/val is always 1 with 4 classes"),
    ("validate.every_epochs=9 epochs=3", None, "validate.every_epochs=9 is longer than the run (epochs=3)"),
    ("validate.every_steps=99 epochs=2", COLOUR, "validate.every_steps=99 has no effect: the run has 20 steps"),
    ("log.every_steps=99 epochs=2", COLOUR, "log.every_steps=99 has no effect: the run has 20 steps"),
    ("compile=true epochs=2", COLOUR, "20 steps on a CPU seldom win back"),
    ("aug=mixup aug.mixup.probability=0", None, "aug=mixup has no effect: aug.mixup.probability=0"),
    ("aug=cutout aug.cutout.until=0", None, "aug=cutout has no effect: aug.cutout.until=0"),
    (
        "aug=cutmix batch_size=1 model=fcn",
        replace(GREY, batch_size=1, mixing=("cutmix",)),
        "aug=cutmix has no effect: batch_size=1",
    ),
]

IN_ORDER = [
    ("", GREY),
    ("", COLOUR),
    ("aug=random_crop data.crop_padding=0", COLOUR),
    ("data=cifar10 aug=[mixup,cutout] loss.label_smoothing=0.1", COLOUR),
    ("monitor=top5/val aug=color_jitter", COLOUR),
    ("early_stop.patience=9 epochs=5 validate.every_steps=1", COLOUR),
    ("early_stop.patience=9 epochs=10 early_stop.min_delta=0.1", COLOUR),
    ("model=fcn batch_size=1", None),
    ("data.whiten=pca model=fcn", COLOUR),
    ("data.whiten=zca data.whiten_eps=0.1", COLOUR),
    ("data=cifar10 aug=flip aug.flip.horizontal=0 aug.flip.vertical=0.5", COLOUR),
    ("data=image_folder aug=random_crop", None),
    ("data=image_folder aug=random_crop", LARGE),
    ("aug=trivial_augment", COLOUR),
    ("aug=color_jitter aug.color_jitter.brightness=0", COLOUR),
    ("aug=random_resized_crop aug.random_resized_crop.area=[0.5,1]", COLOUR),
    ("aug=mixup_or_cutmix aug.mixup_or_cutmix.cutmix=1", COLOUR),
    ("average=swa schedule.floor=0.3 average.bn_images=99", COLOUR),
    ("penalty=elastic penalty.beta=0", COLOUR),
    ("penalty=l2 optimizer.weight_decay=0", COLOUR),
    ("model=vgg model.drop_connect=0.5 model.dropout=0", None),
    ("loss.class_weights=auto", GREY),
    ("compile=true", Facts((3, 32, 32), [5000] * 10, 128, "cpu")),
    ("sam=0.05 max_norm=3 clip_norm=1 precision=bf16 accumulate=2", COLOUR),
]


@functools.cache
def composed(words: str) -> RunConfig:
    return compose_run(words.split())


@pytest.mark.parametrize(("words", "facts", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_work_is_refused(words, facts, said):
    with pytest.raises(UsageError) as caught:
        check(composed(words), facts)
    (line,) = caught.value.lines
    assert said in line


@pytest.mark.parametrize(
    ("words", "facts", "said"), POINTLESS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_pointless_is_said(words, facts, said):
    sentences = check(composed(words), facts)
    assert not sentences if said is None else any(said in sentence for sentence in sentences)
    assert all("{" not in sentence and "None" not in sentence for sentence in sentences)


@pytest.mark.parametrize(("words", "facts"), IN_ORDER)
def test_what_is_in_order_is_met_with_silence(words, facts):
    assert check(composed(words), facts) == []


@pytest.mark.parametrize("group", ["data", "model", "loss", "optimizer", "schedule"])
def test_no_option_alone_is_pointless(group):
    for name in options(group):
        assert check(compose_run([f"{group}={name}"])) == []


EXPERIMENTS = [
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for path in sorted((CONFIGS / "experiment").rglob("*.yaml"))
    if not path.stem.startswith("_")
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_sets_what_is_pointless(name):
    assert check(compose_run([f"experiment={name}"]), COLOUR) == []


@pytest.mark.parametrize(("size", "shifted"), [((300, 320), False), ((32, 32), True)])
def test_large_pictures_are_not_shifted_by_the_recipe(tmp_path, size, shifted):
    """They are cut from a short side drawn anew each time, which reads no crop_padding."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("RGB", size, (9 * index, 0, 0)).save(tmp_path / name / f"{index}.png")
    words = ["data=image_folder", f"data.root={tmp_path}", f"cache_dir={tmp_path / 'cache'}", "data.val_fraction=0.25"]
    warnings = build.open_setup(compose_run([*words, "aug=random_crop"])).warnings
    assert any("aug=random_crop shifts again" in sentence for sentence in warnings) == shifted


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}


def said_in_four_processes(monkeypatch, words: str) -> list[str]:
    with monkeypatch.context() as patch, pytest.raises(UsageError) as caught:
        for name, value in TORCHRUN.items():
            patch.setenv(name, value)
        check(compose_run(words.split()))
    return caught.value.lines


def test_every_check_has_a_case(monkeypatch):
    seen = said_in_four_processes(monkeypatch, "batch_size=3 accumulate=auto")
    for words, facts, _ in [*REFUSED, *POINTLESS]:
        try:
            seen += check(composed(words), facts)
        except UsageError as wrong:
            seen += wrong.lines
    for each in (*ERRORS, *WARNINGS):
        pattern = ".+".join(re.escape(part) for part in re.split(r"\{[\w.]+\}", each.message))
        assert any(re.fullmatch(pattern, sentence) for sentence in seen), each.message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("loss=hinge loss.label_smoothing=0.1", "a setting of loss=cross_entropy, which is not chosen here"),
        ("model=vgg model.stochastic_depth=0.5", "a setting of model=preact_resnet or model=resnet"),
        ("aug=cutout aug.cutout.size=9", "aug.cutout.size=9: must be at most 8"),
        ("model=fcn model.hidden=[] model.dropout=0.5", "model.dropout=0.5: hidden=[] has no hidden units to drop"),
        ("model.norm=layer model.norm_momentum=0.2", "model.norm_momentum=0.2: only norm=batch reads it"),
        ("schedule.warmup=30", "schedule.warmup=30: must be shorter than the run (epochs=30)"),
    ],
)
def test_what_a_part_knows_by_itself_is_refused_by_it(words, said):
    """Settings that a part does not have, or cannot have here: no check of combinations is needed."""
    with pytest.raises(UsageError) as caught:
        run = compose_run(["data=synthetic", "data.shape=[1,8,8]", "data.size=60", *words.split()])
        dry_run.check_settings(run)
        build.trainer(build.open_setup(run))
    (line,) = caught.value.lines
    assert said in line


def test_mistakes_of_all_kinds_are_told_at_once():
    run = compose_run(["early_stop.patience=9", "epochs=2", "schedule.warmup=3", "batch_size=2", "accumulate=3"])
    with pytest.raises(UsageError) as caught:
        dry_run.check_settings(run)
    assert len(caught.value.lines) == 3


def test_warnings_are_shown_in_the_head(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["data=synthetic", "data.size=60", "model=fcn", "model.hidden=[8]", "epochs=1", "loggers=none"]
    assert train([*small, "monitor=top5/val", "data.num_classes=3", "dir=run"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "monitor=top5/val is always 1 with 3 classes" in line


def test_a_sweep_says_each_sentence_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["data=synthetic", "data.size=60", "model=fcn", "model.hidden=[8]", "epochs=1", "loggers=none"]
    assert train(["-m", *small, "early_stop.min_delta=0.1", "seed=0,1"]) == 0
    assert capsys.readouterr().out.count("warning: early_stop.min_delta=0.1 has no effect") == 1
