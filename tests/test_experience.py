"""What a newcomer meets (the checks of a user-experience review that a script can make)."""

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image

from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["model=fcn", "model.hidden=[8]", "epochs=1", "loggers=none"]
CLASSES = ("cat", "dog", "fish")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pictures(folder: Path, count: int = 8, size: int = 12) -> None:
    """Write a folder of tiny pictures of three classes."""
    rng = np.random.default_rng(0)
    for shade, name in zip((40, 120, 200), CLASSES, strict=True):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(rng.normal(shade, 20, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def said(words: list[str], capsys) -> str:
    assert train(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_without_arguments_it_trains_something_real():
    run = compose_run([])
    assert run.choices["data"] == "digits" and run.settings.device == "auto"


def test_no_socket_is_opened(monkeypatch):
    """No network, no telemetry: not one connection in a whole run."""

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert train([*SMALL, "dir=run", "loggers=tensorboard"]) == 0


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        ((), ("train 18", "val 6")),
        (("train",), ("train 18 (train/)", "of train/")),
        (("train", "test"), ("of train/", "test 24 (test/)")),
        (("train", "validation"), ("val 24 (validation/)",)),
        (("train", "val", "test"), ("val 24 (val/)", "test 24 (test/)")),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_a_folder_says_which_part_each_split_plays(layout, parts, capsys):
    for split in layout or (".",):
        pictures(Path("data") / split)
    assert train([*SMALL, "data=image_folder", "data.val_fraction=0.25", "dir=run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("data"))
    assert "3 classes" in line and "3x12x12" in line
    for part in parts:
        assert part in line


def test_training_never_opens_the_test_split():
    """Its pictures may be rubbish: only evaluation finds out, and says so in a line."""
    pictures(Path("data/train"))
    pictures(Path("data/test"))
    for path in Path("data/test").rglob("*.png"):
        path.write_bytes(b"not a picture")
    assert train([*SMALL, "data=image_folder", "dir=run"]) == 0
    evaluate = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "run"]
    done = forked.run(evaluate)
    assert done.returncode == 2 and ".png" in done.stderr and done.stderr.count("\n") <= 11, "ten are named"


def test_a_run_is_evaluated_on_a_folder_with_test_alone():
    for folder in ("data/train", "data/test", "only/test"):
        pictures(Path(folder))
    assert train([*SMALL, "data=image_folder", "dir=run"]) == 0
    evaluate = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "run"]
    heads = [forked.run([*evaluate, *words]).stdout.splitlines()[0] for words in ([], ["data.root=only"])]
    assert heads[0] == heads[1]


def test_a_missing_folder_names_what_is_there(capsys):
    pictures(Path("pictures/train"))
    text = said(["data=image_folder", "data.root=pictures/tran"], capsys)
    assert "pictures" in text and "train" in text
    text = said(["data=mnist", "data.root=nowhere"], capsys)
    assert "data.download=true" in text
    assert not Path("nowhere").exists() and not Path("outputs").exists()


def test_an_empty_class_and_a_broken_picture_are_named(capsys):
    pictures(Path("data"))
    (Path("data") / "horse").mkdir()
    assert "horse" in said([*SMALL, "data=image_folder"], capsys)
    (Path("data") / "horse").rmdir()
    (Path("data") / "cat" / "3.png").write_bytes(b"\x89PNG rubbish")
    assert "3.png" in said([*SMALL, "data=image_folder"], capsys)
    assert not Path("outputs").exists()


def test_a_broken_picture_that_is_only_streamed_fails_the_run_by_its_name(capsys):
    """Large pictures are opened when their turn comes: in val, after the first epoch."""
    for split in ("train", "val"):
        pictures(Path("data") / split, size=40)
    broken = Path("data/val/dog/1.png")
    broken.write_bytes(b"\x89PNG rubbish")
    assert train([*SMALL, "data=image_folder", "data.loader=stream", "data.image_size=16", "dir=run"]) == 1
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "failed" and str(broken) in result["reason"]
    assert str(broken) in capsys.readouterr().out


def test_four_runs_at_once_on_a_read_only_folder():
    pictures(Path("data"))
    before = sorted(path.name for path in Path("data").rglob("*"))
    for path in [*Path("data").rglob("*"), Path("data")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, ROOT / "train.py", *SMALL, "data=image_folder"]
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(forked.run, [[*command, f"seed={seed}"] for seed in range(4)]))
    assert [run.returncode for run in runs] == [0, 0, 0, 0]
    assert len(list(Path("outputs").glob("*/*/result.json"))) == 4
    assert sorted(path.name for path in Path("data").rglob("*")) == before, "nothing is written into the data"


@pytest.mark.parametrize(("optimizer", "times"), [("sgd", 1 + 2 * 2), ("adamw", 1 + 2 * 3)])
def test_checkpoints_stay_small(optimizer, times):
    """Best, and last and the one before with the optimizer's momenta, after any number of epochs."""
    words = ["model=fcn", "model.hidden=[512]", f"optimizer={optimizer}", "loggers=none", "dir=run"]
    assert train([*words, "epochs=3"]) == 0
    parameters = json.loads(Path("run/result.json").read_text())["parameters"]
    files = list(Path("run/checkpoints").iterdir())
    assert {file.name for file in files} == {"best.pt", "last.pt", "last.previous.pt"}
    assert sum(file.stat().st_size for file in files) <= times * 4 * parameters + 50_000


def test_a_checkpoint_holds_no_code():
    """Both load with weights_only, and hold plain types and tensors."""
    import torch

    assert train([*SMALL, "dir=run"]) == 0
    for name in ("best", "last"):
        state = torch.load(f"run/checkpoints/{name}.pt", weights_only=True)
        assert state["overrides"] == [*SMALL, "dir=run"]


def test_a_flipped_bit_in_a_checkpoint_is_found(capsys):
    assert train([*SMALL, "dir=run"]) == 0
    path = Path("run/checkpoints/last.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert train(["resume=run", "epochs=2"]) == 0
    assert "damaged" in capsys.readouterr().out, "and the one before is taken"


def test_debug_shows_the_traceback():
    done = forked.run([sys.executable, ROOT / "train.py", "epohcs=1", "--debug"])
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_from_another_folder_it_works_as_well(tmp_path):
    """configs/ is found beside train.py, outputs/ is made where one stands."""
    done = forked.run([sys.executable, ROOT / "train.py", *SMALL], cwd=tmp_path, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0
    assert list((tmp_path / "outputs").glob("*/*/result.json"))


def test_a_preview_draws_batch_and_schedule(tmp_path):
    preview = [sys.executable, str(ROOT / "scripts" / "preview.py"), "aug=[cutout,mixup]", "schedule=one_cycle"]
    done = forked.run(preview, drawn=True)
    assert done.returncode == 0, done.stderr
    for name in ("batch", "schedule"):
        with Image.open(f"outputs/preview/{name}.png") as picture:
            assert min(picture.size) > 200
