"""What the reader says of short runs: healthy ones, and ones that are broken on purpose. False alarms and hits."""

import argparse
import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

FCN = "model=fcn epochs=15"
NET = "model=resnet model.blocks=[1,1,1] model.widths=[8,8,16] epochs=10"
SGD = "optimizer=sgd optimizer.lr=0.05"
MNIST = (
    "data=mnist data.root={mnist} data.train_images=2000 validate.images=1000 model=fcn model.hidden=[128] epochs=10"
)

# name: words of the run; of a broken one also the verdicts that would be right
HEALTHY = {
    "fcn": FCN,
    "fcn, sgd": f"{FCN} {SGD}",
    "fcn, rmsprop": f"{FCN} optimizer=rmsprop",
    "fcn, 40 epochs": f"{FCN} epochs=40",
    "fcn, batch of 8": f"{FCN} batch_size=8 epochs=8",
    "softmax regression": f"{FCN} model.hidden=[]",
    "rnn": "model=rnn epochs=10",
    "small resnet": NET,
    "small resnet, sgd": f"{NET} {SGD}",
    "small vgg": "model=vgg model.widths=[8,16,16] model.blocks=[1,1,1] model.classifier=[64] epochs=8",
    "mixup": f"{FCN} aug=mixup",
    "cutmix": f"{FCN} aug=cutmix",
    "cutout": f"{FCN} aug=cutout",
    "dropout 0.5": f"{FCN} model.dropout=0.5",
    "label smoothing 0.1": f"{FCN} loss.label_smoothing=0.1",
    "label smoothing 0.95": f"{FCN} loss.label_smoothing=0.95",
    "hinge": f"{FCN} loss=hinge",
    "mse": f"{FCN} loss=mse",
    "bce": f"{FCN} loss=bce",
    "ema": f"{FCN} average=ema average.decay=0.98",
    "sam": f"{FCN} gradient=sam",
    "step schedule": f"{FCN} {SGD} schedule=step",
    "one_cycle": f"{FCN} schedule=one_cycle",
    "linear": f"{FCN} schedule=linear",
    "inverse_sqrt": f"{FCN} schedule=inverse_sqrt",
    "constant, low rate": f"{FCN} schedule=constant optimizer.lr=0.001",
    "early stopping": f"{FCN} epochs=40 early_stop.patience=5",
    "overfit=64": f"{FCN} overfit=64 epochs=30",
    "100 val images": f"{FCN} validate.images=100",
    "two validations an epoch": f"{FCN} validate.every_steps=36",
    "mnist": MNIST,
    "mnist, sgd": f"{MNIST} {SGD}",
    "mnist, mixup": f"{MNIST} aug=mixup",
    "mnist, dropout": f"{MNIST} model.dropout=0.3",
}
BROKEN = {
    "adamw, rate x100": (f"{FCN} optimizer.lr=0.3", {"rate_too_high"}),
    "adamw, rate x1000": (f"{FCN} optimizer.lr=3", {"rate_too_high"}),
    "adamw, rate /100": (f"{FCN} optimizer.lr=3e-5", {"rate_too_low", "train_longer"}),
    "adamw, rate /1000": (f"{FCN} optimizer.lr=3e-6", {"rate_too_low"}),
    "sgd, rate x100": (f"{FCN} {SGD} optimizer.lr=5", {"rate_too_high", "became_not_finite"}),
    "sgd, rate /1000": (f"{FCN} {SGD} optimizer.lr=5e-5", {"rate_too_low"}),
    "resnet, rate /1000": (f"{NET} optimizer.lr=3e-6", {"rate_too_low"}),
    "resnet, rate x1000": (f"{NET} optimizer.lr=3", {"rate_too_high"}),
    "dropped at 5 %": (
        f"{FCN} {SGD} schedule=step schedule.milestones=[0.05] schedule.gamma=0.01",
        {"decayed_too_early"},
    ),
    "cosine over 2 of 15 epochs": (
        f"{NET} {SGD} schedule=step schedule.milestones=[2] schedule.gamma=0.003",
        {"decayed_too_early"},
    ),
    "warm-up 95 %": (
        f"{FCN} optimizer.lr=0.0003 schedule.warmup=0.95",
        {"warmup_too_long", "train_longer", "rate_too_low"},
    ),
    "constant rate, too high": (f"{FCN} optimizer.lr=0.02 schedule=constant", {"noisy_late", "rate_too_high"}),
    "sgd, constant, too high": (
        f"{FCN} {SGD} optimizer.lr=0.3 schedule=constant",
        {"noisy_late", "rate_too_high", "plateau"},
    ),
    "weight decay 100": (f"{FCN} optimizer.weight_decay=100", {"too_much_regularization"}),
    "l2 of 1": (
        f"{FCN} {SGD} penalty=l2 penalty.strength=1",
        {"too_much_regularization", "rate_too_high", "became_not_finite"},
    ),
    "dropout 0.95": (f"{FCN} model.dropout=0.95", {"too_much_regularization"}),
    "drop_connect 0.95": (f"{FCN} model.drop_connect=0.95", {"too_much_regularization"}),
    "clip_norm=1e-4": (f"{FCN} {SGD} clip_norm=1e-4", {"clipped", "rate_too_low"}),
    "weights of 1e-4": (
        f"{FCN} model.hidden=[64,64,64,64,64] {SGD} model.initialization=normal model.init_std=1e-4",
        {"flat_from_start"},
    ),
    "weights of 1": (
        f"{FCN} model.hidden=[64,64,64] {SGD} model.initialization=normal model.init_std=1",
        {"rate_too_high", "became_not_finite", "flat_from_start", "bad_start"},
    ),
    "8 sigmoid layers": (
        f"{FCN} model.hidden=[64,64,64,64,64,64,64,64] {SGD} model.activation=sigmoid",
        {"flat_from_start"},
    ),
    "a hidden layer of 1": (f"{FCN} model.hidden=[1]", {"underfitted"}),
    "momentum 0.999": (f"{FCN} {SGD} optimizer.momentum=0.999", {"rate_too_high", "became_not_finite"}),
    "60 images": (f"{FCN} data.train_images=60 epochs=60", {"overfitted"}),
    "labels shuffled": (
        f"{FCN} data=npz data.file={{shuffled}} epochs=40 schedule=constant",
        {"overfitted", "no_transfer"},
    ),
    "val inverted": (f"{FCN} data=npz data.file={{inverted}}", {"no_transfer"}),
    "3 epochs": (f"{NET} epochs=2 optimizer.lr=0.0005", {"train_longer", "rate_too_low"}),
    "mnist, rate x1000": (f"{MNIST} optimizer.lr=3", {"rate_too_high"}),
    "mnist, rate /1000": (f"{MNIST} optimizer.lr=3e-6", {"rate_too_low"}),
    "mnist, dropout 0.95": (f"{MNIST} model.hidden=[128,128] model.dropout=0.95", {"too_much_regularization"}),
    "mnist, 100 images": (f"{MNIST} data.train_images=100 epochs=60", {"overfitted"}),
    "mnist, dropped at 5 %": (
        f"{MNIST} {SGD} optimizer.lr=0.02 schedule=step schedule.milestones=[0.05] schedule.gamma=0.01",
        {"decayed_too_early"},
    ),
}


def words_of(text: str, folder: Path, mnist: str) -> list[str]:
    files = {"mnist": mnist, "shuffled": folder / "shuffled.npz", "inverted": folder / "inverted.npz"}
    return [*text.format(**files).split(), "threads=1", "device=cpu"]


def write_data(folder: Path) -> None:
    """Write the digits with labels in another order, and with a val of inverted images."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images, labels = (digits.images * 255 / 16).astype(np.uint8), digits.target
    rng = np.random.default_rng(0)
    np.savez(folder / "shuffled.npz", images=images, labels=rng.permutation(labels))
    order, count = rng.permutation(len(labels)), 400
    val, train = order[:count], order[count:]
    split = {"train_images": images[train], "train_labels": labels[train]}
    split |= {"val_images": 255 - images[val], "val_labels": labels[val]}
    np.savez(folder / "inverted.npz", **split)


def run(text: str, run_dir: Path, folder: Path, mnist: str) -> None:
    """Train one run into its folder, unless it is there."""
    from deeptrain.run import launch

    if (run_dir / "result.json").is_file():
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        launch.main([*words_of(text, folder, mnist), f"dir={run_dir}"])


def report(name: str, run_dir: Path, accepted: set[str] | None) -> str:
    """Print what is read of a run; return how it counts: silent, advice, alarm, or right, wrong."""
    from deeptrain.analysis import reader
    from deeptrain.run import record

    found = reader.read(record.load(run_dir))
    names = [finding.name for finding in found]
    if accepted is None:
        kinds = {finding.kind for finding in found}
        mark = "alarm" if "fault" in kinds else "advice" if "advice" in kinds else "quiet"
    else:
        mark = "right" if names and names[0] in accepted else "wrong"
    print(f"{mark:<6}  {name:<28}  {', '.join(names) or 'no diagnosis'}", flush=True)
    return mark


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs are kept; those that are there are only read")
    parser.add_argument("--seed", type=int, default=0, help="of the runs; thresholds were set on those of seed 0")
    parser.add_argument("--mnist", help="the folder with MNIST; without it, its runs are left out")
    options = parser.parse_args(words)
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    cases = {name: (text, None) for name, text in HEALTHY.items()} | BROKEN
    counts: Counter[str] = Counter()
    for name, (text, accepted) in cases.items():
        if "{mnist}" in text and not options.mnist:
            continue
        run_dir = folder / name.replace(" ", "_").replace("/", "over")
        run(f"{text} seed={options.seed} data.split_seed={options.seed}", run_dir, folder, options.mnist)
        counts[report(name, run_dir, accepted)] += 1
    print(", ".join(f"{count} {mark}" for mark, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
