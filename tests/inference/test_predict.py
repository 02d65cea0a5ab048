"""The command predict: rows, broken pictures, mistakes in a line, a fast start; `deeptrain.load` in Python."""

import csv
import io
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import deeptrain
from deeptrain.commands import predict as predict_module
from deeptrain.commands.cli import train
from deeptrain.commands.predict import predict
from deeptrain.inference import predictor
from deeptrain.inference.pictures import expand
from deeptrain.inference.predictor import Prediction
from deeptrain.runtime import watch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "predict.py")
CLASSES = ["cat", "dog", "fish"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with pictures and a run that has learned them."""
    home, rng = tmp_path_factory.mktemp("predict"), np.random.default_rng(0)
    for shade, name in zip((40, 120, 210), CLASSES, strict=True):
        (home / "data" / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(rng.normal(shade, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "data" / name / f"{index}.png")
    words = ["model=fcn", "model.hidden=[16]", "epochs=6", "loggers=none", "device=cpu", "threads=1"]
    data = ["data=image_folder", f"data.root={home / 'data'}", "data.val_fraction=0.5"]
    assert train([*words, *data, f"dir={home / 'run'}"]) == 0
    return home


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def out(capsys, *words: str) -> list[str]:
    assert predict(["run", *words]) == 0
    return capsys.readouterr().out.splitlines()


def mistake(capsys, *words: str) -> str:
    """Return the one line of a mistake."""
    assert predict(list(words)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_the_three_formats_say_the_same(capsys):
    head, *table = out(capsys, "data/cat", "top=2")
    rows = [json.loads(line) for line in out(capsys, "data/cat", "format=json", "top=2")]
    cells = list(csv.DictReader(io.StringIO("\n".join(out(capsys, "data/cat", "format=csv")))))
    assert "class" in head and len(table) == len(rows) == len(cells) == 20
    for line, row, cell in zip(table, rows, cells, strict=True):
        assert line.split()[:2] == [row["file"], row["label"]] == [cell["file"], cell["label"]]
        assert row["top"][0]["label"] == row["label"] and len(row["top"]) == 2
        shares = [float(cell[name]) for name in CLASSES]
        assert row["probability"] == float(cell["probability"]) == max(shares)
        assert abs(sum(shares) - 1) < 1e-9
    assert {row["file"] for row in rows} == set(map(str, Path("data/cat").glob("*.png")))


@pytest.mark.parametrize("columns", [40, 80])
def test_a_table_stays_within_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    classes = [f"a class with a long name, number {index}" for index in range(5)]
    pictures = [Path(f"a/very/long/folder/of/pictures/{index}.png") for index in range(2)]
    probabilities = np.full(5, 0.2)
    title, row = predict_module._formats(predict_module.Options(coverage=0.9), pictures, classes, 0.1)["table"]
    rows = [row(Prediction(str(picture), classes, probabilities, probabilities, probabilities)) for picture in pictures]
    assert all(len(line) < columns for line in (title, *rows)) and len({*rows}) == 2, "the end of a name is kept"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    _, row = predict_module._formats(predict_module.Options(), pictures, classes, None)["table"]
    assert row(Prediction(str(pictures[0]), classes, probabilities, probabilities, probabilities)).count("number") == 5


def test_a_table_is_also_written_to_a_file(capsys):
    assert out(capsys, "data/cat", "format=csv") != out(capsys, "data/cat", "csv=out.csv")
    assert Path("out.csv").read_text().splitlines() == out(capsys, "data/cat", "format=csv")


def test_names_come_from_standard_input():
    names = "data/cat/1.png\n\ndata/dog/2.png\nnowhere.png\n"
    words = [sys.executable, SCRIPT, "run", "-", "format=json"]
    done = subprocess.run(words, input=names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == ["data/cat/1.png", "data/dog/2.png"]
    assert "nowhere.png: does not exist" in done.stderr


def test_broken_pictures_are_listed_last_and_end_nothing(capsys, tmp_path):
    whole = Path("data/cat/1.png").read_bytes()
    broken = {
        "empty.png": b"",
        "text.png": b"no picture",
        "cut.png": whole[: len(whole) // 2],
        "name.jpg": b"\xff\xd8\xff",
        "IMG_1.HEIC": b"\0\0\0\x18ftypheic",
        "zip.png": b"PK\3\4",
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "damaged.png": whole[:8] + bytes(60),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(whole)
    assert predict(["run", str(tmp_path), "format=json", "batch_size=8"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 30
    summary, *reasons = said.err.splitlines()
    assert "38 pictures" in summary and "8 could not be read" in summary
    assert len(reasons) == len(broken) and all(any(name in line for line in reasons) for name in broken)
    assert predict(["run", str(tmp_path), "strict=true"]) == 1


def test_pictures_in_folders_in_folders_are_found(capsys):
    assert len(out(capsys, ".", "format=json", "top=1")) == 60 + sum(1 for _ in Path("run").glob("*.png"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere", "data"], "run=nowhere: there is no such run"),
        (["data", "data"], "data: is no run"),
        (["run", "clip.mp4"], "clip.mp4: not a readable picture"),
        (["run", "missing.png"], "missing.png: does not exist"),
        (["run", "empty"], "empty: has no pictures"),
        (["run", "outer"], "outer: has no pictures"),
        (["run", "deep.tif"], "data.range=[0,4000]"),
        (["run"], "name a picture, a folder, or -"),
        (["run", "data", "tpo=3"], "did you mean top?"),
        (["run", "data", "top=0"], "top=0: must be >= 1"),
        (["run", "data", "--top=3"], "write top=3, without --"),
        (["run", "data", "format=xml"], "choose from table, json, csv"),
        (["run", "data", "coverage=2"], "coverage=2"),
        (["run", "data", "coverage=0.99"], "needs 99 images of val"),
        (["run", "data", "data.resize=pad"], "the run keeps how it reads pictures"),
        (["run", "data", "epochs=3"], "epochs=3"),
        (["run", "data", "device=tpu"], "device=tpu"),
        (["run", "data", "csv=nowhere/out.csv"], "csv=nowhere/out.csv: cannot be written"),
        (["run", "data", "--config-dir=nowhere"], "is no folder"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(capsys, words, part):
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    for name in ("empty", "outer/inner/innermost"):
        Path(name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.linspace(0, 4000, 64, dtype=np.float32).reshape(8, 8)).save("deep.tif")
    assert part in mistake(capsys, *words)
    Path("clip.mp4").unlink(), Path("deep.tif").unlink()


def test_a_run_without_best_weights_is_one_line(capsys):
    best = Path("run/checkpoints/best.pt")
    best.rename("aside.pt")
    try:
        assert "best.pt is missing" in mistake(capsys, "run", "data")
    finally:
        Path("aside.pt").rename(best)


def test_sets_hold_the_true_class_as_often_as_promised(capsys):
    rows = [json.loads(line) for line in out(capsys, "data", "format=json", "coverage=0.9")]
    held = [Path(row["file"]).parent.name in row["set"] for row in rows]
    assert sum(held) / len(held) > 0.8
    kept = Path("run/conformal.json").read_text()
    Path("run/conformal.json").unlink()
    again = [json.loads(line) for line in out(capsys, "data", "format=json", "coverage=0.9")]
    assert again == rows, "computed from the data of the run"
    assert Path("run/conformal.json").read_text() == kept, "and kept"
    other = json.loads(kept) | {"weights": "of another run"}
    Path("run/conformal.json").write_text(json.dumps(other))
    assert [json.loads(line) for line in out(capsys, "data", "format=json", "coverage=0.9")] == rows


def test_it_starts_without_what_it_does_not_need():
    script = (
        "import sys; from deeptrain.commands.predict import predict; code = predict(['run', 'data/cat/1.png']); "
        "heavy = {'hydra', 'omegaconf', 'matplotlib', 'torchvision', 'sklearn', 'rich', 'torch._dynamo', 'sympy'}; "
        "assert code == 0 and not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_mistakes_are_answered_without_torch():
    script = (
        "import sys; from deeptrain.commands.predict import predict; "
        "wrong = [['nowhere', 'x'], ['run', 'x'], ['run', '.', 'x=1']]; "
        "codes = [predict(['--help']), *map(predict, wrong)]; "
        "assert codes == [0, 2, 2, 2], codes; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_model_of_ones_own_needs_its_folder_named_now(capsys, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# mine\n_target_: my_net.Net\nwidth: 4\n")
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, input_shape, num_classes, width: int = 4):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))\n"
    )
    text = (tmp_path / "my_net.py").read_text().replace("nn.LazyLinear(width)", "nn.Linear(192, width)")
    (tmp_path / "my_net.py").write_text(text)
    own = f"--config-dir={tmp_path}"
    words = ["model=mine", own, "epochs=1", "loggers=none", "device=cpu", "data=image_folder", "dir=own"]
    assert train(words) == 0
    capsys.readouterr()
    assert "by which it could run any code" in mistake(capsys, "own", "data/cat/1.png")
    assert predict(["own", "data/cat/1.png", own]) == 0
    assert len(deeptrain.load("own", [own]).predict("data")) == 60


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("os.system", "outside deeptrain"),
        ("deeptrain.config.instantiate.import_module", "makes no network"),
        ("deeptrain.runtime.device.Runtime", "makes no network"),
        ("torch.nn.functional.relu", "makes no network"),
    ],
)
def test_a_folder_decides_nothing_that_runs_code(capsys, tmp_path, target, part):
    stranger = shutil.copytree("run", tmp_path / "stranger")
    config = yaml.safe_load((stranger / "config.yaml").read_text())
    config["model"] = {"_target_": target}
    (stranger / "config.yaml").write_text(yaml.safe_dump(config))
    assert part in mistake(capsys, str(stranger), "data/cat/1.png")


# --- from Python ---


def test_three_lines_of_python():
    network = deeptrain.load("run")
    answers = network.predict(["data/cat/1.png", Path("data/dog/1.png"), "data/fish"])
    assert [answer.label for answer in answers[:2]] == ["cat", "dog"] and len(answers) == 22
    first = answers[0]
    assert first.name == "data/cat/1.png" and first.top(1) == [(first.label, first.probability)]
    assert first.at_least(0) == [name for name, _ in first.top(3)]
    np.testing.assert_allclose(first.probabilities, torch.tensor(first.logits).double().softmax(0), atol=1e-12)


def test_a_disk_that_does_not_answer_ends_in_a_line(monkeypatch, caplog):
    answer = threading.Event()
    for name, value in {"TICK": 0.02, "WARN_AFTER": 2, "LIMIT": 4, "work_of": lambda _: 0.0}.items():
        monkeypatch.setattr(watch, name, value)
    monkeypatch.setattr(predictor, "decode_picture", lambda *_: answer.wait(20))
    with pytest.raises(ValueError, match="no file was read for 4 s: the disk does not answer"):
        deeptrain.load("run").predict([np.zeros((8, 8), np.uint8)])
    answer.set()
    assert "waited for until 4 s" in caplog.records[0].getMessage()


def test_features_are_what_the_last_layer_receives():
    network = deeptrain.load("run").to("cpu")
    features, logits = network.features("data/cat"), network.logits("data/cat")
    last = [layer for layer in network.model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    assert features.shape == (20, 16)
    torch.testing.assert_close(last(features), logits)


def test_predicting_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    deeptrain.load("run").predict("data/cat")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("picture", "part"),
    [
        (np.zeros((8, 8, 3), np.float32), "as uint8"),
        (np.full((8, 8, 3), -1.0), "before any normalisation"),
        (np.zeros((3, 8, 8), np.uint8), r"must be \(H, W\)"),
        (torch.linspace(-2, 2, 192).view(3, 8, 8), "before any normalisation"),
        ("data/cat/nothing.png", "does not exist"),
        ("data/nothing", "does not exist"),
    ],
    ids=["floats", "negative", "channels_first", "normalised_tensor", "missing_file", "missing_folder"],
)
def test_other_arrays_and_missing_files_are_refused(picture, part):
    with pytest.raises(ValueError, match=part):
        deeptrain.load("run").predict([picture])


def test_a_folder_named_like_a_home_is_read_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~mine").mkdir()
    Path("~mine/0.png").touch()
    assert expand("./~mine") == expand(Path("~mine")) == [Path("~mine/0.png")]
    with pytest.raises(ValueError, match="no such home directory"):
        expand("~mine")
