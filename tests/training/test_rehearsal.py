"""A network that does not fit the data is refused before a folder is made."""

import pytest
import torch
from torch import nn

from deeptrain.commands.cli import train
from deeptrain.runtime.device import Runtime
from deeptrain.training.checkpoint import load
from deeptrain.training.rehearsal import forward_backward, min_images

SHAPE = (3, 8, 8)


def network(*last):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), *last)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(nn.Linear(4, 1000)), r"^returns \(N, 1000\) in training, must return logits \(N, 5\), one a class$"),
        (network(nn.Linear(4, 5), nn.Unflatten(1, (5, 1))), r"^returns \(N, 5, 1\) in training"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(384, 5)), r"^returns \(5,\) in training"),
        (nn.LSTM(8, 5), r"^does not take images 3x8x8 \(.*\)$"),
        (nn.Sequential(nn.Flatten(2), nn.LSTM(64, 5)), r"^returns tuple in training, must return logits \(N, 5\)$"),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 5)), r"^does not take images 3x8x8 \(.*mat1 and mat2 shapes"),
    ],
)
def test_what_is_no_logits_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        forward_backward(model, SHAPE, 5, Runtime())


def test_evaluation_is_looked_at_too_and_inf(device):
    class Folded(nn.Linear):
        def forward(self, images):
            logits = super().forward(images.flatten(1))
            return logits if self.training else logits.mean(0)

    with pytest.raises(ValueError, match=r"^returns \(5,\) in evaluation"):
        forward_backward(Folded(192, 5).to(device), SHAPE, 5, Runtime(device))
    broken = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).to(device)
    nn.init.constant_(broken[1].bias, torch.inf)
    with pytest.raises(ValueError, match=r"^returns inf or NaN in training before the first step"):
        forward_backward(broken, SHAPE, 5, Runtime(device))


def test_nothing_is_left_behind_and_idle_parameters_are_named(device):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head, self.unused = nn.BatchNorm2d(3), nn.Linear(192, 5), nn.Linear(2, 2)

        def forward(self, images):
            return self.head(self.norm(images).flatten(1))

    model = Half().to(device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert forward_backward(model, SHAPE, 5, Runtime(device)) == ["unused.weight", "unused.bias"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    for parameter in (*model.parameters(),):
        parameter.requires_grad_(False)
    assert forward_backward(model, SHAPE, 5, Runtime(device)) == [], "frozen parameters are meant to get none"


SMALL = ["data=synthetic", "data.size=40", "data.num_classes=2", "epochs=1", "loggers=none", "threads=1", "dir=run"]


def write(tmp_path, target, settings=""):
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(f"# of my own\n_target_: {target}\n{settings}")
    return ["--config-dir", str(tmp_path / "conf"), "model=own"]


def test_a_head_of_the_wrong_size_is_refused_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hidden_head.py").write_text(
        "from torch import nn\n\n\ndef net(**kwargs):\n    classes = kwargs.get('classes', 1000)\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, classes))\n"
    )
    words = write(tmp_path, "hidden_head.net")
    assert train([*words, *SMALL]) == 2
    assert "error: model=own: returns (N, 1000) in training, must return logits (N, 2)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_of_torchvision_gets_the_number_of_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = write(tmp_path, "torchvision.models.squeezenet1_1", "dropout: 0.1\n")
    assert train([*words, *SMALL, "limit_steps=1", "validate.clean_images=0"]) == 0
    assert load(tmp_path / "run" / "checkpoints" / "last.pt")["model"]["classifier.1.weight"].shape[0] == 2


class Squeezed(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1)).squeeze()


@pytest.mark.parametrize(
    ("model", "images"),
    [
        (network(), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)), 1),
        (network(nn.BatchNorm1d(4)), 2),
        (nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten()), 2),
        (network(nn.BatchNorm1d(4).eval().requires_grad_(False)), 2),  # train() makes it train again
        (Squeezed(192, 4), 2),
    ],
)
def test_some_models_cannot_train_on_a_single_image(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert min_images(model, SHAPE, 4, Runtime()) == images
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("words", [["accumulate=2"], ["accumulate=5"], ["accumulate=2", "data.size=202"]])
def test_no_epoch_ends_in_a_piece_of_one_image(words, tmp_path, monkeypatch):
    """data.size=199: batches of 16 images and one of 3, which two pieces would cut into 2 and 1."""
    monkeypatch.chdir(tmp_path)
    words = ["data.size=199", "data.shape=[1,8,8]", "model=fcn", "model.hidden=[8]", "batch_size=16", *words]
    assert train([*SMALL, *words, "model.norm=batch", "epochs=2"]) == 0


def test_a_batch_in_pieces_of_one_image_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squeezing.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.head = nn.LazyLinear(num_classes)\n\n"
        "    def forward(self, images):\n        return self.head(images.flatten(1)).squeeze()\n"
    )
    words = write(tmp_path, "squeezing.Net")
    assert train([*words, *SMALL, "batch_size=4", "accumulate=4"]) == 2
    assert "batch_size=4: model=own cannot train on a single image (accumulate=4)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train([*words, *SMALL, "batch_size=5", "accumulate=3"]) == 0


def test_without_a_compiler_compile_is_refused_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    """torch.compile fails in many ways; each is one line."""

    def fail(function):
        raise RuntimeError("No working C++ compiler found\nand a page of hints")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", fail)
    words = ["data=synthetic", "data.shape=[1,8,8]", "data.size=60", "model=fcn", "device=cpu", "compile=true"]
    assert train([*words, "dir=run"]) == 2
    assert capsys.readouterr().err == (
        "error: compile=true: needs a C++ compiler, and none works here (No working C++ compiler found); "
        "install one (g++), or write compile=false\n"
    )
    assert not (tmp_path / "run").exists()
