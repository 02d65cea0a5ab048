"""Words of other frameworks: what they are called here, or what we have instead."""

RENAMED = {  # a setting that we have too: its key here
    "amp": "precision",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "clip_grad": "clip_norm",
    "data_dir": "data.root",
    "data_path": "data.root",
    "dataset": "data",
    "dropout_rate": "model.dropout",
    "grad_clip": "clip_norm",
    "gradient_clip_val": "clip_norm",
    "accumulate_grad_batches": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "gpu": "device",
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "lr_scheduler": "schedule",
    "max_epochs": "epochs",
    "max_steps": "limit_steps",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "optim": "optimizer",
    "output_dir": "dir",
    "path": "data.root",
    "save_dir": "dir",
    "scheduler": "schedule",
    "val_split": "data.val_fraction",
    "wd": "optimizer.weight_decay",
    "weight_decay": "optimizer.weight_decay",
}

ANSWERS = {  # what is written in another way, or does not exist
    "bf16": "write precision=bf16",
    "cv": "write folds=5",
    "checkpoint": "a run writes checkpoints by itself; write resume=RUN to go on from one",
    "ckpt": "write resume=RUN to go on from a checkpoint",
    "early_stopping": "write early_stop.patience=5",
    "ema": "write average=ema",
    "dry_run": "goes with -m; a run without -m is checked before its first step anyway",
    "export": "write python scripts/export.py RUN to=onnx",
    "f1": "write metrics=macro_f1",
    "fail_fast": "goes with -m, or with resume=SWEEP",
    "find_lr": "write optimizer.lr=auto, or python scripts/find_lr.py",
    "fp16": "write precision=fp16",
    "freeze": "write finetune=head beside init_from=RUN to train the last layer only",
    "gpus": "write device=cuda for one; torchrun --nproc-per-node 2 train.py uses two",
    "k_fold": "write folds=5",
    "kfold": "write folds=5",
    "inference": "write python scripts/predict.py RUN PICTURE",
    "img_size": "write data.image_size=64 beside data=image_folder",
    "imgsz": "write data.image_size=64 beside data=image_folder",
    "jobs": "goes with -m, or with resume=SWEEP: so many runs of a sweep at a time",
    "folds": "goes with train.py, -m or ablate: folds=5 trains on every fold; here write data.folds=5 data.fold=0",
    "lr_find": "write optimizer.lr=auto, or python scripts/find_lr.py",
    "mlflow": "write loggers=mlflow",
    "num_classes": "the data set says how many classes there are; leave it out",
    "pretrained": "write model=torchvision model.name=resnet18 model.weights=DEFAULT, or init_from=RUN",
    "predict": "write python scripts/predict.py RUN PICTURE",
    "retry": "goes with -m, or with resume=SWEEP: retry=failed",
    "snapshots": "write checkpoint.snapshots=5 schedule=cyclic",
    "swa": "write average=swa",
    "sweep": "write -m, and several values: -m seed=0,1,2",
    "tensorboard": "write loggers=tensorboard, which is the default",
    "tta": "write it behind python scripts/evaluate.py RUN, as in tta=flip",
    "wandb": "write loggers=wandb",
    "weights": "write init_from=RUN, or model.weights=DEFAULT beside model=torchvision",
}


def answer(key: str, value: str = "") -> str | None:
    """Say what to write instead of a setting, a flag or a word of another framework; None if it is not known."""
    name = key.rpartition(".")[2].lower().replace("-", "_")
    if name in RENAMED:
        return f"is called {RENAMED[name]} here; write {RENAMED[name]}={value or '...'}"
    return ANSWERS.get(name)
