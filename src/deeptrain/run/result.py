"""What a run leaves in result.json, and what every checkpoint stores about its run."""

from typing import TYPE_CHECKING, Any

from deeptrain import build
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer


def metadata(setup: build.Setup) -> dict[str, Any]:
    """Return what every checkpoint says of itself, so that it can be used without the run's folder."""
    from deeptrain.runtime.versions import hardware_info, versions

    dataset = setup.dataset
    return {
        "overrides": setup.run.overrides,
        "versions": versions(),
        "machine": hardware_info(setup.runtime.device) | {"processes": get_world().size},
        "data": dataset.fingerprint,
        "changed": [],
        "classes": dataset.classes,
        "input_shape": list(dataset.image_shape),
        "mean": [float(value) for value in dataset.mean],
        "std": [float(value) for value in dataset.std],
        "subtract_image_mean": setup.pipeline.subtract_image_mean,
        "decoder": dataset.decoder and dataset.decoder.state_dict(),
        "init_from": setup.initial_weights and setup.initial_weights.origin,
        "whitening": setup.pipeline.whitening and setup.pipeline.whitening.state_dict(),
    }


def make_result(trainer: "Trainer", setup: build.Setup, status: str, reason: str, seconds: float) -> dict[str, Any]:
    from deeptrain.training.checkpoint import digest

    progress = trainer.progress
    weights = digest(trainer.model.state_dict()) if status != "failed" else None  # what last.pt holds
    return {
        "status": status,
        "reason": reason,
        "monitor": trainer.plan.monitor,
        "higher_is_better": trainer.plan.higher_is_better,
        "as_percent": trainer.validator.metrics[trainer.plan.monitor.removesuffix("/val")].as_percent,
        "best": progress.best,
        "best_epoch": progress.best_epoch,
        "epochs": trainer.plan.epochs_done(trainer.progress),
        "steps": progress.step,
        "seconds": round(seconds, 3),
        "train_seconds": round(progress.train_seconds, 3),
        "images_per_second": round(progress.images / max(progress.train_seconds, 1e-9), 1),
        "peak_memory": trainer.runtime.peak_memory(),
        "metrics": progress.metrics,
        "final": final_metrics(trainer) if status in ("finished", "stopped_early") else None,
        "final_weights": trainer.validator.final_weights,
        **images(setup),
        "initial_loss": trainer.metadata["initial_loss"],
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "weights": weights,
        "init_from": trainer.metadata["init_from"],
        **provenance(trainer),
    }


def final_metrics(trainer: "Trainer") -> dict[str, float] | None:
    """Return what val says of the final weights, by tag; None if they have not been validated."""
    from deeptrain.training.progress import AVERAGE

    progress = trainer.progress
    if progress.validated < progress.step:
        return None
    end = "_average" if trainer.validator.final_weights == AVERAGE else ""
    return {
        tag.removesuffix(end): value for tag, value in progress.metrics.items() if tag.partition("/")[2] == f"val{end}"
    }


def images(setup: build.Setup) -> dict[str, Any]:
    """Return how many images and classes there are, and the share of the largest class in train."""
    dataset = setup.dataset
    counts = build.data_info(dataset)["class_counts"]
    sizes = {"train": len(dataset.train), "val": len(dataset.val), "num_classes": len(dataset.classes)}
    return {"images": sizes, "largest_class": max(counts) / max(sum(counts), 1)}


def provenance(trainer: "Trainer") -> dict[str, Any]:
    """Return what a result depends on besides the words of its run."""
    return {name: trainer.metadata[name] for name in ("versions", "machine", "data", "changed")}
