"""Words of other frameworks are answered with ours, or with the truth that there is nothing."""

import pytest

from deeptrain.config import elsewhere
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError

VALUES = {
    "data": "digits",
    "data.val_fraction": 0.2,
    "device": "cpu",
    "model.dropout": 0.1,
    "optimizer": "sgd",
    "precision": "fp32",
    "schedule": "cosine",
}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pretrained=true", "init_from=RUN"),
        ("model.pretrained=true", "init_from=RUN"),
        ("find_lr", "optimizer.lr=auto"),
        ("weights=imagenet", "init_from=RUN"),
        ("num_classes=3", "leave it out"),
        ("data.path=cats", "data.root=cats"),
        ("imgsz=64", "data.image_size=64"),
        ("export", "scripts/export.py RUN to=onnx"),
        ("predict", "scripts/predict.py RUN PICTURE"),
        ("wandb=true", "loggers=wandb"),
        ("f1=true", "metrics=macro_f1"),
        ("lr=0.1", "optimizer.lr=0.1"),
        ("learning_rate=0.1", "optimizer.lr=0.1"),
        ("weight_decay=0.1", "optimizer.weight_decay=0.1"),
        ("batch=32", "batch_size=32"),
        ("gpus=2", "torchrun"),
        ("amp=true", "precision"),
        ("--lr=0.1", "optimizer.lr=0.1"),
        ("--max-epochs=3", "epochs=3"),
    ],
)
def test_a_word_from_elsewhere_is_met(word, meant):
    with pytest.raises(UsageError) as error:
        compose_run([word])
    (line,) = error.value.lines
    assert line.startswith(f"{word}: ") and meant in line and "did you mean" not in line


@pytest.mark.parametrize("key", sorted(set(elsewhere.RENAMED.values())))
def test_what_it_is_called_here_exists(key):
    compose_run(["model=vgg", f"{key}={VALUES.get(key, 1)}"])
