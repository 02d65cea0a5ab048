"""What a person looks at after a run: curves, confusions, mistakes and the card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deeptrain import build
from deeptrain.config.compose import experiment_overrides
from deeptrain.config.settings import RunConfig
from deeptrain.loggers.console import Console
from deeptrain.run import answers, conformal, record
from deeptrain.run.resume import CHANGED
from deeptrain.run.summary import next_commands, reading
from deeptrain.runtime import signals
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.paths import quote, quote_setting
from deeptrain.runtime.resources import command

if TYPE_CHECKING:
    from torch import Tensor

    from deeptrain.data.loader import Loader
    from deeptrain.loggers.metrics_csv import Table
    from deeptrain.metrics.confusion import Confusion
    from deeptrain.training.initial_weights import InitialWeights
    from deeptrain.training.trainer import Trainer


def write_first_files(trainer: "Trainer", setup: build.Setup, console: Console, run_dir: Path, logs: Any) -> None:
    """Write the files of a run before its first step: settings, split, first images; open its logs.

    logs: what the checkpoint of a run that goes on knows of them.
    """
    from deeptrain.analysis.preview import training_samples
    from deeptrain.loggers.log_digests import repair
    from deeptrain.loggers.run_logger import RunLogger, table_columns
    from deeptrain.metrics.metric import informative
    from deeptrain.report.image_grid import save
    from deeptrain.training.checkpoint import Checkpoints

    run, progress = setup.run, trainer.progress
    console.open_log(run_dir / "run.log")
    _write(run_dir / "split.json", json.dumps(setup.dataset.split, indent=1))
    if trainer.metadata["changed"]:  # before the settings that they are compared with are written anew
        _write(run_dir / CHANGED, json.dumps(trainer.metadata["changed"], indent=1))
    _write(run_dir / "config.yaml", run.yaml)
    if setup.initial_weights is not None:
        _write_initial_weights(setup.initial_weights, run, run_dir)
    _write(run_dir / "overrides.yaml", yaml.safe_dump(run.overrides, allow_unicode=True))  # last: now it can be resumed
    (run_dir / "result.json").unlink(missing_ok=True)  # of the run that now goes on
    for warning in repair(run_dir, logs):
        console.warn(warning)
    columns, tables = table_columns(trainer.metric_names()), _open_tables(trainer, run_dir, console)
    facts = {"run_dir": run_dir, "step": progress.step, "metrics": columns, "title": run.title, "warn": console.warn}
    facts |= {"charts": list(informative(trainer.validator.metrics, len(setup.dataset.classes)))}
    facts |= {"initial_loss": trainer.metadata["initial_loss"]}
    trainer.logger = RunLogger(console, [*tables, *build.loggers(run, **facts)], trainer.validator.metrics)
    parts, total = run.settings.checkpoint.snapshots or 0, trainer.plan.total_steps
    snapshots = {total * number // parts: number for number in range(1, parts + 1)}
    trainer.checkpoints = Checkpoints(run_dir / "checkpoints", snapshots)
    position = progress.epoch, progress.step_in_epoch, trainer.plan.fraction(progress)
    batches = setup.world.unsharded(trainer.train_loader, lambda: build.train_loader(setup, stream=True))
    picture = training_samples(setup, batches, *position)
    if batches is not trainer.train_loader:
        batches.close()
    save(run_dir / "samples.png", picture)
    trainer.logger.describe(_hyperparameters(run), picture, progress.step)


def _open_tables(trainer: "Trainer", run_dir: Path, console: Console) -> "list[Table]":
    """Open metrics.csv, steps.csv and layers.csv at the step of the run; begin the last two with what was before it."""
    from deeptrain.loggers.metrics_csv import MetricsTable
    from deeptrain.loggers.run_logger import table_columns
    from deeptrain.loggers.steps_csv import LayersTable, StepsTable

    names, warn, start = trainer.metric_names(), console.warn, {"epoch": 0, "step": 0}
    tags = [name for name in names if name.endswith("/train") or "penalty" in name]
    steps = [*tags, "rate/lr", *trainer.vitals.tags]
    table = MetricsTable(run_dir / "metrics.csv", table_columns(names), warn)
    step_table = StepsTable(run_dir / "steps.csv", steps, trainer.plan.steps_per_epoch, warn)
    tables: list[Table] = [table, step_table]
    if layers := trainer.vitals.layer_tags:
        tables.append(layer_table := LayersTable(run_dir / "layers.csv", ["epoch", "step", *layers], warn))
        if trainer.progress.step == 0 and not layer_table.rows():
            layer_table.append(start | trainer.vitals.look_now(trainer.validator))
    initial = trainer.metadata["initial_loss"]
    if initial and trainer.progress.step == 0 and not step_table.rows():
        step_table.append(start | {"loss/train": initial["train"]})
    for each in tables:
        each.truncate(trainer.progress.step)
    return tables


def _write_initial_weights(initial: "InitialWeights", run: RunConfig, run_dir: Path) -> None:
    """Note the origin of the first weights in config.yaml, and keep a copy of them; then memory is free again."""
    from deeptrain.training import checkpoint
    from deeptrain.training.initial_weights import COPY

    _write(run_dir / "config.yaml", f"{run.yaml}# init_from: the weights with the digest {initial.digest}\n")
    if initial.tensors:
        checkpoint.save(run_dir / COPY, initial.state_dict())
    initial.tensors.clear()


def draw(trainer: "Trainer", setup: build.Setup, run_dir: Path, result: dict[str, Any], console: Console) -> None:
    """Draw the figures and the card; warn if that fails or a signal ends it, since the training is done."""
    from deeptrain.training.checkpoint import Damaged

    remedy = f"{quote_setting('resume', run_dir)} draws them"
    stop = signals.first_then_exit(signals.raise_interrupt, setup.world.signal_grace)
    try:
        with signals.handle_signals(stop):
            _draw(trainer, setup, run_dir, result)
    except KeyboardInterrupt:
        console.warn(f"stopped before all pictures were drawn; {remedy}")
    except Damaged as error:
        console.warn(f"{error}; there are no pictures of its answers, but the last weights are in last.pt")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        console.warn(f"the pictures could not all be drawn ({reason}); {remedy}")


def _draw(trainer: "Trainer", setup: build.Setup, run_dir: Path, result: dict[str, Any]) -> None:
    """Draw the curves and the best weights' answers on val; then the card."""
    from deeptrain.metrics.metric import informative
    from deeptrain.report.card import CardData, worst_classes, write_card
    from deeptrain.report.figures import draw_curves, draw_layers

    rows = trainer.logger.table.rows() if trainer.logger.table is not None else []
    if not rows or not (run_dir / "checkpoints" / "best.pt").is_file():
        return
    classes, words = setup.dataset.classes, setup.run.overrides
    initial, best_epoch = trainer.metadata["initial_loss"], trainer.progress.best_epoch
    trainer.logger.flush()
    steps, layers = (record.rows(run_dir / name) for name in ("steps.csv", "layers.csv"))
    val_images = len(setup.dataset.val) if trainer.plan.val_is_sample else 0
    draw_curves(rows, run_dir / "curves.png", setup.run.title, best_epoch, initial, steps, val_images)
    if layers:
        draw_layers(layers, run_dir / "layers.png", setup.run.title)
    confusion = _draw_answers(trainer, setup, run_dir, result)
    figures = {name: run_dir / f"{name}.png" for name in ("curves", "layers", "confusion", "mistakes")}
    trainer.logger.log_figures({name: path for name, path in figures.items() if path.is_file()}, trainer.progress.step)
    repeat = " ".join([command("train"), *(quote(word) for word in words if not word.startswith("dir="))])
    data = CardData(
        title=setup.run.title,
        result=result,
        rows=rows,
        metrics=informative(trainer.validator.metrics, len(classes)),
        changed=[*words, *experiment_overrides(setup.run)],
        data=setup.dataset.summary,
        model=f"{setup.run.choices['model']}, {result['parameters']:,} parameters",
        worst=worst_classes(confusion, classes),
        largest_class=confusion.images.max() / confusion.counts.sum(),
        commands=[("repeat this run", repeat), *next_commands(trainer, setup, run_dir)],
        reading=[(label, text) for label, _, text in (line.partition("  ") for line in reading(run_dir, result))],
    )
    write_card(run_dir, data)


def _draw_answers(trainer: "Trainer", setup: build.Setup, run_dir: Path, result: dict[str, Any]) -> "Confusion":
    """Keep what the final and the best weights answer on val; draw the best ones' confusions and worst mistakes.

    What conformal sets need of these answers is kept too. Returns the confusions.
    """
    from deeptrain.metrics.confusion import confusion_of
    from deeptrain.report.figures import draw_confusion
    from deeptrain.training import checkpoint
    from deeptrain.training.validation import predict

    best, classes = checkpoint.load(run_dir / "checkpoints" / "best.pt"), setup.dataset.classes
    own = trainer.validator.loader
    val = setup.world.unsharded(
        own, lambda: build.eval_loader(setup.source, setup.dataset.val, setup.run, setup.runtime)
    )
    final = _final_logits(trainer, val, best) if result["final"] else None
    trainer.model.load_state_dict(best["model"])
    logits, labels = predict(trainer.model, val.epoch(0), trainer.pipeline, trainer.runtime)
    final = logits if result["final"] and final is None else final
    _keep_answers(trainer, setup, run_dir, {answers.FINAL: final, answers.BEST: logits}, labels)
    loss = setup.run.parts["loss"]["_target_"].rpartition(".")[2]
    conformal.save(run_dir, checkpoint.digest(best["model"]), logits, labels, loss)
    confusion = confusion_of(logits.argmax(1), labels, len(classes))
    draw_confusion(confusion, classes, run_dir / "confusion.png")
    _draw_mistakes(val, classes, logits, labels, run_dir / "mistakes.png")
    if val is not own:
        val.close()
    return confusion


def _final_logits(trainer: "Trainer", val: "Loader", best: dict[str, Any]) -> "Tensor | None":
    """Return the logits (N, K) of the final weights on val; None where these are the best weights too."""
    progress, validator = trainer.progress, trainer.validator
    if best["progress"]["step"] == progress.step and best.get("weights") == validator.final_weights:
        return None
    return validator.predict_final(val, progress.epoch, trainer.plan.fraction(progress))[0]


def _keep_answers(
    trainer: "Trainer", setup: build.Setup, run_dir: Path, logits: dict[str, "Tensor | None"], labels: "Tensor"
) -> None:
    """Write answers.npz. logits: of the final weights, if the run has come to its end, and of the best ones."""
    dataset, ids = setup.dataset, labels.numpy()
    saved = answers.Answers(ids, dataset.classes, dataset.fingerprint, answers.image_digest(dataset.split["val"], ids))
    for weights, found in logits.items():
        if found is not None:
            saved.predicted[weights], saved.losses[weights] = answers.of_logits(found, labels, trainer.validator.loss)
    answers.save(run_dir, saved)


def _draw_mistakes(val: "Loader", classes: list[str], logits: Any, labels: Any, path: Path) -> None:
    """Draw the images of val that the network is most wrong about, the worst first, with both classes."""
    import numpy as np
    from torch.nn.functional import cross_entropy

    from deeptrain.report.image_grid import grid, save

    losses = cross_entropy(logits, labels, reduction="none").masked_fill(logits.argmax(1) == labels, 0)
    worst = [index for index in losses.argsort(descending=True)[:32].tolist() if losses[index] > 0]
    pixels, start = {}, 0
    for images, _ in val.epoch(0):
        indices = [index for index in worst if start <= index < start + len(images)]
        pixels |= {index: images[index - start].permute(1, 2, 0).cpu().numpy() for index in indices}
        start += len(images)
    if worst:
        captions = [f"{classes[int(logits[index].argmax())]}, not {classes[int(labels[index])]}" for index in worst]
        save(path, grid(np.stack([pixels[index] for index in worst]), captions))


def _hyperparameters(run: RunConfig) -> dict[str, Any]:
    """Return the settings that a sweep compares: the choices by name, and every value."""
    plumbing = (
        "dir",
        "init_from",
        "resume",
        "rerun",
        "cache_dir",
        "allow_targets",
        "log.",
        "loggers",
        "workers",
        "data.root",
        "data.download",
    )
    values = {key: value for key, value in run.values.items() if not key.startswith(plumbing)}
    choices = {group: option for group, option in run.choices.items() if group != "loggers"}
    return {**choices, **values, **choices}  # an empty group has the value {}, and its choice is none


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
