"""All parts of a run put together: the Trainer."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deeptrain.build.features import remember_features
from deeptrain.build.loaders import eval_loader, shard, train_loader
from deeptrain.build.measures import metrics
from deeptrain.build.network import loss, trainable_model
from deeptrain.build.optimizers import make_gradient, make_optimizer
from deeptrain.build.setup import Setup, open_setup
from deeptrain.config.instantiate import instantiate
from deeptrain.config.settings import RunConfig

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import nn

    from deeptrain.average import Average
    from deeptrain.data.dataset import Samples
    from deeptrain.data.loader import Loader
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.training.progress import Plan
    from deeptrain.training.trainer import Trainer
    from deeptrain.training.validation import Validator

VITALS_EVERY = 200  # steps


def trainer(setup: Setup, metadata: dict[str, Any] | None = None, logger: "RunLogger | None" = None) -> "Trainer":
    """Build what a run still lacks and put all of it together; without a logger it trains in silence."""
    from deeptrain.loggers.console import Console
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.training.recovery import auto_accumulate
    from deeptrain.training.trainer import Trainer
    from deeptrain.training.vitals import Vitals

    settings, parts, world = setup.run.settings, setup.run.parts, setup.world
    network = trainable_model(setup)
    batches = train_loader(setup, world=world)
    average = instantiate("average", parts["average"], model=network) if parts["average"] else None
    optimizer = make_optimizer(setup, network)
    criterion = loss(setup)
    plan = replace(_plan(setup), steps_per_epoch=len(batches))
    if settings.finetune.cache and plan.total_steps >= len(batches) and average is None:
        remember_features(setup, network)
    trainer = Trainer(
        network,
        optimizer,
        setup.pipeline,
        batches,
        _validator(setup, network, criterion, average, plan),
        plan=plan,
        schedule=instantiate("schedule", parts["schedule"], epochs=settings.epochs),
        loss=criterion,
        runtime=setup.runtime,
        logger=logger or RunLogger(Console(quiet=True)),
        gradient=make_gradient(setup, network, optimizer),
        penalty=instantiate("penalty", parts["penalty"]) if parts["penalty"] else None,
        average=average,
        accumulate=1 if settings.accumulate == "auto" else settings.accumulate,
        min_images=setup.min_images,
        clip_norm=settings.clip_norm,
        max_norm=settings.max_norm,
        seed=settings.seed,
        world=world,
        vitals=Vitals(VITALS_EVERY if settings.log.vitals and world.is_main else 0),
        metadata=metadata or {},
    )
    if settings.accumulate == "auto":
        auto_accumulate(trainer)
    return trainer


def build_trainer(run: RunConfig) -> "Trainer":
    """Open the data of a composed run and build its trainer, without a run folder; it trains in silence."""
    from deeptrain.runtime.device import keep_malloc_arena

    keep_malloc_arena()
    return trainer(open_setup(run))


def _plan(setup: Setup) -> "Plan":
    from deeptrain.training.progress import Plan

    settings = setup.run.settings
    return Plan(
        epochs=settings.epochs,
        limit_steps=settings.limit_steps,
        max_seconds=settings.max_seconds,
        monitor=settings.monitor,
        val_is_sample=not (settings.overfit or setup.source.val_is_train),
        patience=settings.early_stop.patience,
        min_delta=settings.early_stop.min_delta,
        validate_every_epochs=settings.validate.every_epochs,
        validate_every_steps=settings.validate.every_steps,
        save_every_steps=settings.checkpoint.every_steps,
        save_every_minutes=settings.checkpoint.every_minutes,
        log_every_steps=settings.log.every_steps,
    )


def _validator(
    setup: Setup, network: "nn.Module", criterion: Any, average: "Average | None", plan: "Plan"
) -> "Validator":
    from deeptrain.loss import for_evaluation
    from deeptrain.runtime.batch_norm import settling_batches
    from deeptrain.training.validation import BN_IMAGES, Validator

    clean = setup.dataset.train.evenly_spaced(setup.run.settings.validate.clean_images)
    is_early = settling_batches(network) > plan.first_validation
    bn_images = (average.bn_images if average is not None else 0) or (BN_IMAGES if is_early else 0)

    def loader(samples: "Samples") -> "Loader":
        return eval_loader(setup.source, shard(samples, setup.world), setup.run, setup.runtime)

    return Validator(
        network,
        loader(setup.dataset.val),
        setup.pipeline,
        setup.runtime,
        for_evaluation(criterion),
        clean_loader=loader(clean) if len(clean) else None,
        bn_loader=train_loader(setup, bn_images) if bn_images else None,
        average=average,
        metrics=metrics(setup.run, setup.dataset),
        seed=setup.run.settings.seed,
        world=setup.world,
    )
