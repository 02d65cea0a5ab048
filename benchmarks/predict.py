"""What predicting pictures costs beside timm's inference, fastai's get_preds and the Hugging Face pipeline; four bars.

Every way asks the same small network (a stride of 4, one linear layer) about the same files, so that reading and
resizing are what counts. Peers that are not installed are named. The other bars: a start within 1.25 of `import torch`;
1,000 pictures of which 20 are broken in 8 ways; the same logits as an evaluation for 10,000 pictures.

    uv run --group peers benchmarks/predict.py --pictures DIR [--run RUN]
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import Apart, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import nn

BATCH = 64
COMMAND = [sys.executable, "-m", "deeptrain", "predict"]
MODULES = Path(__file__).resolve().parent / "strided"  # the network of all ways, as a model of one's own
SAME, SMALL = ["model=strided", f"--config-dir={MODULES}"], ["model=fcn", "model.hidden=[4]"]
PEERS = {"timm": "timm", "fastai": "fastai", "transformers": "Hugging Face"}


def network(side: int) -> nn.Module:
    sys.path.append(str(MODULES))
    from strided import Strided  # pyright: ignore[reportMissingImports]

    return Strided((3, side, side), 10).eval()


# --- ways; each is made in a process of its own ---


def ours(files: list[str], side: int, run: str) -> Way:
    import deeptrain

    predictor = deeptrain.load(run, ["device=cpu", f"--config-dir={MODULES}"])
    return way(files, lambda chosen: predictor.logits(chosen))


def with_timm(files: list[str], side: int) -> Way:
    """Do what timm's inference.py does: create_dataset of a folder, create_loader, two workers."""
    from timm.data import ImageDataset, create_loader
    from timm.data.readers.reader import Reader

    class Listed(Reader):
        def __init__(self, names: list[str]):
            super().__init__()
            self.names = names

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return Path(self.names[index]).open("rb"), 0

        def __len__(self) -> int:
            return len(self.names)

        def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
            return self.names[index]

    model = network(side)

    def work(chosen: list[str]) -> None:
        dataset = ImageDataset(root=".", reader=Listed(chosen))
        loader = create_loader(
            dataset, (3, side, side), BATCH, num_workers=2, use_prefetcher=False, crop_pct=1.0, device="cpu"
        )
        with torch.inference_mode():
            for images, _ in loader:
                model(images)

    return way(files, work)


def with_fastai(files: list[str], side: int) -> Way:
    from fastai.learner import Learner
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Resize

    block = DataBlock((ImageBlock, CategoryBlock), get_y=lambda path: Path(path).parent.name, item_tfms=Resize(side))
    loaders = block.dataloaders([Path(name) for name in files[:200]], bs=BATCH, num_workers=2)
    learner = Learner(loaders, network(side), loss_func=nn.CrossEntropyLoss())

    def work(chosen: list[str]) -> None:
        with learner.no_bar():
            learner.get_preds(dl=loaders.test_dl([Path(name) for name in chosen], bs=BATCH, num_workers=2))

    return way(files, work)


def with_hugging_face(files: list[str], side: int, batch: int) -> Way:
    from transformers import PretrainedConfig, PreTrainedModel, ViTImageProcessor, pipeline
    from transformers.modeling_outputs import ImageClassifierOutput

    class Wrapped(PreTrainedModel):
        config_class = PretrainedConfig
        main_input_name = "pixel_values"

        def __init__(self, config: PretrainedConfig):
            super().__init__(config)
            self.network = network(side)
            self.post_init()

        def forward(self, pixel_values: torch.Tensor, **_: Any) -> ImageClassifierOutput:
            return ImageClassifierOutput(logits=self.network(pixel_values))

    processor = ViTImageProcessor(size={"height": side, "width": side})
    pipe = pipeline("image-classification", model=Wrapped(PretrainedConfig(num_labels=10)), image_processor=processor)
    return way(files, lambda chosen: pipe(chosen, batch_size=batch))


def way(files: list[str], work: Callable[[list[str]], object]) -> Way:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of peers' workers, as in a script of its own
    return Way(lambda units: lambda: work(files[:units]), len(files) // 4, len(files))


def speed(name: str, files: list[str], side: int, run: str, rounds: int) -> None:
    """Print a table: pictures a second of CPU time, and how much faster ours is."""
    ways = {"deeptrain": Apart(ours, files, side, run)}
    if find_spec("timm"):
        ways["timm, inference.py"] = Apart(with_timm, files, side)
    if find_spec("fastai"):
        ways["fastai, get_preds"] = Apart(with_fastai, files, side)
    if find_spec("transformers"):
        ways["Hugging Face pipeline"] = Apart(with_hugging_face, files, side, 1)
        ways["Hugging Face pipeline, batch_size=64"] = Apart(with_hugging_face, files, side, BATCH)
    found = {key: timing.whole for key, timing in measure(ways, rounds, warmup=1).items()}
    ratios = {key: times_faster(found["deeptrain"], samples) for key, samples in found.items()}
    rows = [
        [key, *(f"{value:,.0f}" for value in 1 / median(samples)), f"{spread(samples)[1] / median(samples)[1]:.0%}"]
        + [f"{value:.1f}x" for value in ratios[key]]
        for key, samples in found.items()
    ]
    table([f"{len(files)} {name}", "a second", "a CPU-second", "±", "ours, wall", "ours, CPU"], rows)
    for index, clock in enumerate(("wall", "CPU")):  # by the wall both cores count, which some peers leave idle
        if len(found) > 1:
            goal(
                "", f"over the fastest peer, {clock}", min(ratios[key][index] for key in found if key != "deeptrain"), 2
            )
        if (slow := "Hugging Face pipeline") in found:
            goal("", f"over Hugging Face's default, {clock}", ratios[slow][index], 10)


# --- the other bars ---


def start(run: str, picture: str, rounds: int) -> None:
    """Compare the CPU seconds of fresh processes: a prediction, and the import of torch alone."""
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "predict": [*COMMAND, run, picture, "device=cpu"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    medians = {name: float(np.median(values[1:])) for name, values in taken.items()}
    print("start, CPU seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in medians.items()))
    ratio = medians["predict"] / medians["import torch"]
    print(f"goal: start over import torch: {ratio:.2f} (at most 1.25), {'held' if ratio <= 1.25 else 'MISSED'}")


def broken(whole: bytes) -> dict[str, bytes]:
    """Return broken pictures of eight kinds by the name that they have."""
    return {
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "cut.jpg": whole[: len(whole) // 2],
        "head_only.jpg": b"\xff\xd8\xff",
        "photo.heic": b"\0\0\0\x18ftypheic" + bytes(20),
        "archive.png": b"PK\3\4" + bytes(40),
        "page.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "damaged.png": b"\x89PNG\r\n\x1a\n" + bytes(60),
    }


def with_broken(run: str, files: list[str], folder: Path) -> None:
    """Predict 980 whole pictures and 20 broken ones in one folder."""
    for index, name in enumerate(files[:980]):
        (folder / f"{index}.jpg").write_bytes(Path(name).read_bytes())
    kinds = list(broken(Path(files[0]).read_bytes()).items())
    for index in range(20):
        name, content = kinds[index % len(kinds)]
        (folder / f"{index}_{name}").write_bytes(content)
    done = subprocess.run([*COMMAND, run, str(folder), "format=json"], capture_output=True, text=True, check=False)
    rows, said = [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines()
    reasons = [line for line in said if any(name in line for name, _ in kinds)]
    print(
        f"1,000 pictures, 20 broken of 8 kinds: {len(rows)} rows, {len(reasons)} reasons, exit code {done.returncode}"
    )
    held = (len(rows), len(reasons), done.returncode) == (min(980, len(files)), 20, 0)
    print(f"goal: 980 rows, 20 reasons, exit 0: {'held' if held else 'MISSED'}")


def one_road(run: str) -> None:
    """Compare the logits of predict and evaluate for every picture of the run's test folder, bit for bit."""
    import deeptrain
    from deeptrain.config.compose import compose_run
    from deeptrain.inference.evaluate import answer
    from deeptrain.run.saved import load_overrides

    composed = compose_run(load_overrides(Path(run)))
    answers = answer(composed, Path(run) / "checkpoints" / "best.pt", "test")
    logits = deeptrain.load(run).logits(Path(composed.parts["data"]["root"]) / "test")
    differ = int((logits != answers.logits).any(1).sum())
    print(f"goal: 0 of {len(logits):,} pictures have other logits in predict than in evaluate: {differ} differ")


def make_run(folder: Path, files: list[str], side: int, model: list[str]) -> str:
    """Train a network for a step, as a run that reads pictures at this size."""
    for index, name in enumerate(files[:40]):
        path = folder / "data" / "ab"[index % 2] / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(name).read_bytes())
    words = ["data=image_folder", f"data.root={folder / 'data'}", f"data.image_size={side}", "data.resize=squash"]
    words += [*model, "limit_steps=1", "epochs=1", "loggers=none", "device=cpu", "threads=1"]
    train = [sys.executable, "-m", "deeptrain", "train", *words, f"dir={folder / 'run'}"]
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    return str(folder / "run")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few noisy pictures: does it run at all?")
    parser.add_argument("--pictures", type=Path, help="a folder of small JPEGs, in folders")
    parser.add_argument("--run", help="a run of an image folder, whose whole test split is compared with an evaluation")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    small, large, rounds = (60, 20, 1) if options.quick else (5000, 500, options.rounds)
    print(circumstances("torch", "timm", "fastai", "transformers", quick=options.quick))
    print("not installed: " + (", ".join(name for package, name in PEERS.items() if not find_spec(package)) or "none"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = (
            sorted(map(str, options.pictures.rglob("*.jp*g"))) if options.pictures else noise(folder / "noise", small)
        )
        files = files[:small]
        photos = enlarged(files[:large], folder / "photos")
        for index, (kind, chosen, side) in enumerate((("of 32x32", files, 32), ("of 500x375", photos, 224))):
            (folder / str(index)).mkdir()
            run = make_run(folder / str(index), chosen, side, SAME)
            speed(kind, chosen, side, run, rounds)
        run = make_run(folder / "own", photos, 224, SMALL)
        start(run, photos[0], 1 if options.quick else 7)
        (folder / "mixed").mkdir()
        with_broken(run, files, folder / "mixed")
    if options.run:
        one_road(options.run)


def noise(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.jpg")
    return sorted(map(str, folder.iterdir()))


def enlarged(files: list[str], folder: Path) -> list[str]:
    """Write pictures of the size of a photograph."""
    folder.mkdir()
    for index, name in enumerate(files):
        Image.open(name).convert("RGB").resize((500, 375)).save(folder / f"{index}.jpg", quality=90)
    return sorted(map(str, folder.iterdir()))


if __name__ == "__main__":
    main()
