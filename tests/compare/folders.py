"""Run folders as a run leaves them, written without a run."""

import json
from pathlib import Path

import numpy as np
import yaml

from deeptrain.run import answers

CONFIG = {
    "seed": 0,
    "epochs": 4,
    "early_stop": {"patience": None},
    "aug": {},
    "optimizer.lr": 0.003,
    "model": {"_target_": "a.b.ResNet"},
}
CLASSES = ["cat", "dog"]
IMAGES = 400


def write_run(path: Path, *words: str, right: float = 0.9, best: float = 0.92, keep: bool = True, **result) -> Path:
    """Write the folder of a run with an accuracy. result: of result.json, where `status=None` leaves it out."""
    path.mkdir(parents=True)
    settings = dict(word.split("=", 1) for word in words)
    config = json.loads(json.dumps(CONFIG)) | {"seed": int(settings.get("seed", 0)), "dir": str(path)}
    config["aug"] = {name: {"p": 1} for name in settings.get("aug", "none").strip("[]").split(",") if name != "none"}
    config |= {key: value for key, value in settings.items() if key not in ("aug", "model", "seed")}
    (path / "overrides.yaml").write_text(yaml.safe_dump([*words, f"dir={path}"]))
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    rows = [f"{epoch},{epoch * 10},{right * epoch / 4},{0.1 * (4 - epoch)}" for epoch in range(1, 5)]
    (path / "metrics.csv").write_text("\n".join(["epoch,step,accuracy/val,rate/lr", *rows, ""]))
    final = {"accuracy/val": right, "loss/val": 1 - right}
    content = {
        "status": "finished",
        "reason": "4 epochs done",
        "monitor": "accuracy/val",
        "higher_is_better": True,
        "as_percent": True,
        "best": best,
        "metrics": final,
        "final": final,
        "train_seconds": 10.0,
        "images_per_second": 1000.0,
        "data": "12345678",
        "versions": {"deeptrain": "1", "source": "a"},
        **result,
    }
    if content["status"] is not None:
        (path / "result.json").write_text(json.dumps(content))
    if keep and content["status"] == "finished":
        keep_answers(path, right, int(config["seed"]))
    return path


def keep_answers(path: Path, right: float, seed: int) -> None:
    """Write answers of which a share is right: the images have their difficulty, and each seed its luck."""
    labels = np.arange(IMAGES) % 2
    luck = np.random.default_rng(0).random(IMAGES) + 0.3 * np.random.default_rng([1, seed]).random(IMAGES)
    wrong = np.argsort(luck)[: round((1 - right) * IMAGES)]
    predicted = labels.copy()
    predicted[wrong] = 1 - predicted[wrong]
    kept = answers.Answers(labels, CLASSES, "12345678", "00")
    for weights in ("final", "best"):
        kept.predicted[weights], kept.losses[weights] = predicted, np.abs(predicted - labels).astype(np.float16)
    answers.save(path, kept)


def write_study(base: Path, **accuracies: list[float]) -> Path:
    """Write a run for each setting of aug and each of its accuracies: the seeds from 0 on."""
    for aug, values in accuracies.items():
        for seed, right in enumerate(values):
            write_run(base / f"aug={aug},seed={seed}", f"aug={aug}", f"seed={seed}", right=right)
    return base
