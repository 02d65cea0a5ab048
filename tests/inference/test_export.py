"""Exported files answer as the network does, hold what a user needs, and their page works without torch."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeptrain
from deeptrain.aug.pipeline import Pipeline
from deeptrain.aug.whitening import Whitening
from deeptrain.commands.cli import train
from deeptrain.commands.export import export
from deeptrain.data.decode import Decoder
from deeptrain.errors import UsageError
from deeptrain.inference import export as room
from deeptrain.inference.model_card import snippet
from deeptrain.inference.predictor import Predictor
from deeptrain.model.resnet import ResNet
from deeptrain.model.rnn import RNN
from deeptrain.run.calibration import Calibration
from deeptrain.runtime.device import Runtime

RNG = np.random.default_rng(0)
CLASSES = ["cat", "dog's", 'a "fish"']
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; exec(open(sys.argv[0]).read())"


def predictor(model: torch.nn.Module, decoder: Decoder, pipeline: Pipeline | None = None) -> Predictor:
    pipeline = pipeline or Pipeline([], [100.0] * decoder.channels, [50.0] * decoder.channels)
    return Predictor(model.eval(), pipeline, decoder, CLASSES, Runtime())


def flat(decoder: Decoder) -> torch.nn.Module:
    size = decoder.height * decoder.width * decoder.channels
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 3))


def pixels(decoder: Decoder, count: int = 70) -> np.ndarray:
    return RNG.integers(0, 256, (count, decoder.height, decoder.width, decoder.channels), dtype=np.uint8)


# --- the page ---


def pictures(folder: Path) -> list[Path]:
    """Write pictures of many kinds: large, lying, turned by EXIF, transparent, gray, with a palette, in CMYK."""
    coarse = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "plain.png": coarse.resize((37, 23)),
        "large.jpg": coarse.resize((900, 700)),
        "tall.jpg": coarse.resize((300, 801)),
        "turned.jpg": coarse.resize((300, 200)),
        "gray.png": coarse.convert("L"),
        "palette.png": coarse.resize((40, 50)).convert("P"),
        "cmyk.jpg": coarse.resize((64, 48)).convert("CMYK"),
        "clear.png": Image.fromarray(RNG.integers(0, 256, (30, 40, 4), dtype=np.uint8), "RGBA"),
    }
    for name, image in kinds.items():
        image.save(folder / name, **({"exif": exif} if name == "turned.jpg" else {}))
    return [folder / name for name in kinds]


@pytest.mark.parametrize(
    "decoder",
    [
        Decoder(24, 24, 3),
        Decoder(20, 32, 1, background=(0, 0, 0)),
        Decoder(64, 64, 3, short_side=73),
        Decoder(24, 24, 3, resize="pad", background=(9, 99, 199)),
        Decoder(20, 32, 3, short_side=25, resize="pad"),
        Decoder(20, 32, 3, resize="squash"),
        Decoder(64, 64, 1, short_side=73, resize="squash"),
        Decoder(24, 24, 3, resize="fit"),
    ],
    ids=lambda decoder: f"{decoder.resize}-{decoder.height}x{decoder.width}x{decoder.channels}-{decoder.short_side}",
)
def test_the_lines_of_the_page_read_a_picture_as_the_run_does(decoder, tmp_path):
    lines = snippet(predictor(flat(decoder), decoder), "onnx", Path("m.onnx"))
    names: dict = {"np": np, "Image": Image}
    exec("from PIL import ImageOps\n" + re.search(r"def read.*?\n\n", lines, re.S)[0], names)
    for path in pictures(tmp_path):
        np.testing.assert_array_equal(names["read"](path), decoder.decode_center(path), err_msg=path.name)


# --- the file ---


@pytest.mark.parametrize("subtract_image_mean", [False, True])
@pytest.mark.parametrize("whitens", [False, True])
def test_the_pipeline_inside_is_that_of_the_run(subtract_image_mean, whitens):
    decoder = Decoder(5, 7, 3)
    whitening = Whitening(torch.randn(105, 105), torch.randn(105)) if whitens else None
    pipeline = Pipeline([], [90.0, 100.0, 110.0], [40.0, 50.0, 0.0], subtract_image_mean, whitening)
    deployed = room.Deployed(torch.nn.Identity(), pipeline, 7)
    images = torch.from_numpy(pixels(decoder))
    expected = pipeline.evaluate(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(deployed(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("to", ["onnx", "torch_export", "safetensors"])
def test_a_recurrent_network_in_every_format(to, tmp_path):
    for package in room.PACKAGES[to]:
        pytest.importorskip(package)
    decoder = Decoder(8, 8, 1)
    network = predictor(RNN((1, 8, 8), 3, hidden=8), decoder)
    network.calibration = Calibration(1.7, 200, 1.0, 0.9, "digest")
    path = tmp_path / f"model{room.SUFFIXES[to]}"
    parity = room.export(network, to, path, pixels(decoder))
    assert parity.images == 70 and parity.difference < 1e-5 and list(tmp_path.iterdir()) == [path]
    facts = {name: json.loads(text) for name, text in metadata(to, path).items()}
    assert facts["classes"] == CLASSES and facts["temperature"] == 1.7 and facts["input"]["pixels"] == ["N", 8, 8, 1]
    assert facts["resize"]["resize"] == "crop" and facts["inside"]["shift"] == [-2.0]


def metadata(to: str, path: Path) -> dict[str, str]:
    if to == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    if to == "torch_export":
        kept = {"deeptrain.json": ""}
        torch.export.load(path, extra_files=kept)
        return json.loads(kept["deeptrain.json"])
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata()


@pytest.mark.slow
def test_a_residual_network_as_onnx(tmp_path):
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    decoder = Decoder(16, 16, 3)
    network = predictor(
        ResNet((3, 16, 16), 3, depth=20, blocks=[1, 1], widths=[4, 4]).to(memory_format=torch.channels_last), decoder
    )
    parity = room.export(network, "onnx", tmp_path / "model.onnx", pixels(decoder))
    assert parity.difference < 1e-5 and not parity.other_labels


def test_a_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    decoder = Decoder(4, 4, 1)
    network = predictor(flat(decoder), decoder)

    def almost(network, deployed):
        wrong = replace(network, model=torch.nn.Sequential(network.model, Scale(1 + 1e-4)))
        return b"content", lambda batch: room._answers_of(wrong, batch)

    class Scale(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, logits):
            return logits * self.factor

    monkeypatch.setitem(room.WRITERS, "safetensors", almost)
    with pytest.raises(UsageError, match="answer otherwise"):
        room.export(network, "safetensors", tmp_path / "model", pixels(decoder))
    assert not any(tmp_path.iterdir())


# --- the command ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("export")
    for shade, name in ((60, "cat"), (180, "dog")):
        (home / "data" / name).mkdir(parents=True)
        for index in range(12):
            noise = RNG.normal(shade, 40, (9, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(home / "data" / name / f"{index}.png")
    words = ["model=fcn", "model.hidden=[8]", "epochs=2", "loggers=none", "device=cpu", "threads=1"]
    data = ["data=image_folder", f"data.root={home / 'data'}", "data.val_fraction=0.3"]
    assert train([*words, *data, f"dir={home / 'run'}"]) == 0
    return home


@pytest.fixture
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_the_page_works_without_torch(in_folder, capsys):
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    assert export(["run", "to=onnx"]) == 0
    assert re.search(r"0 of \d labels differ", capsys.readouterr().out)
    page = Path("run/model.onnx.md").read_text()
    Path("run/use.py").write_text(re.search(r"```python\n(.*?)```", page, re.S)[1])
    files = sorted(map(str, Path("data").resolve().rglob("*.png")))
    words = [sys.executable, "-c", WITHOUT_TORCH, "use.py", *files]
    done = subprocess.run(words, cwd="run", capture_output=True, text=True, check=True)
    answers = deeptrain.load("run").predict(files)
    expected = [f"{answer.name} {answer.label} {answer.probability:.4f}" for answer in answers]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run"], "to: is missing; choose from onnx, torch_export, safetensors"),
        (["run", "to=onx"], "did you mean onnx? choose from onnx, torch_export, safetensors"),
        (["to=onnx"], "name the run first"),
        (["nowhere", "to=onnx"], "there is no such run"),
        (["run", "to=torch_export", "file=nowhere/model.pt2"], "its folder does not exist"),
        (["run", "to=torch_export", "pictures=run/checkpoints"], "has no pictures"),
        (["run", "to=torch_export", "epochs=3"], "exporting does not read it"),
    ],
    ids="+".join,
)
def test_a_mistake_is_one_line(in_folder, capsys, words, part):
    assert export(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def test_missing_packages_are_named(in_folder, capsys, monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    assert export(["run", "to=onnx"]) == 2
    assert "needs onnx, onnxscript, onnxruntime; pip install 'deeptrain[export]'" in capsys.readouterr().err


def test_mistakes_are_answered_without_torch(in_folder):
    script = (
        "import sys; from deeptrain.commands.export import export; "
        "codes = [export(['--help']), *map(export, [['nowhere', 'to=onnx'], ['run'], ['run', 'to=x']])]; "
        "assert codes == [0, 2, 2, 2], codes; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
