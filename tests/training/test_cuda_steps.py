"""Steps on a CUDA device that is not there: fake tensors, and a list of what the host uploads and waits for.

Fake tensors have a shape and a device, but no values. Autograd's engine needs a driver, so a backward pass leaves
gradients without values. Real kernels, cuDNN's recurrent networks and values of the device are not tested here.
"""

from dataclasses import dataclass, field
from itertools import zip_longest
from traceback import extract_stack

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deeptrain import build
from deeptrain.aug.pixel_rows import tile_channels
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.runtime import device, sync_batch_norm
from deeptrain.runtime.upload import PINNED_BYTES
from deeptrain.training import recovery

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is here: see benchmarks/train.py")

GPU = torch.device("cuda", 0)
DATA = ["data=synthetic", "data.shape=[3,16,16]", "data.size=120", "data.num_classes=3", "batch_size=32"]
SMALL = ["model=fcn", "model.hidden=[6]", "model.norm=batch"]
BLOCKS = ["model.depth=20", "model.blocks=[1,1]", "model.widths=[4,4]"]
RESNET = ["model=resnet", *BLOCKS]
VGG = ["model=vgg", "model.blocks=[1,1]", "model.widths=[4,4]", "model.classifier=[6]"]
RNN = ["model=rnn", "model.hidden=6", "model.layers=2", "model.dropout=0.5"]
# Those that make floats come last.
AUGS = sorted({*options("aug")} - {"none", "off"}, key=lambda name: ("mix" in name, name))
ALL_AUGS = f"aug=[{','.join(AUGS)}]"
PARTS = [  # each loss, optimizer, penalty and average once
    [word for word in words if word]
    for words in zip_longest(
        *([f"{group}={name}" for name in options(group)] for group in ("loss", "optimizer", "penalty", "average"))
    )
]
PARTS = [[word for word in words if word != "optimizer=lbfgs"] for words in PARTS]  # its line search reads the loss
WAITING = {"item", "_local_scalar_dense"}  # what depends on values in another way raises an error here
REPLACED = {
    "item": 1,
    "_local_scalar_dense": 1,
    "_fused_sgd_": None,
}  # a fake tensor has no value; the kernel has no fake form


@dataclass
class Watch(TorchDispatchMode):
    """Note every operation on the GPU, every upload, and every place where the host would wait."""

    launches: int = 0
    uploads: list[str] = field(default_factory=list)  # those that may wait: large from pageable memory, or blocking
    waits: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.__name__.split(".")[0], kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim or tensor.device.type == "cuda"}
        self.launches += "cuda" in devices
        if name in ("_to_copy", "copy_"):
            self.note_copy(name, args, kwargs)
        elif devices == {"cpu", "cuda"}:
            self.mixed.append(place(name))
        if name in WAITING and "cuda" in devices:
            self.waits.append(place(name))
        if name in REPLACED:
            return REPLACED[name]
        return func(*args, **kwargs)

    def note_copy(self, name, args, kwargs):
        source, target = (
            (args[1], args[0].device) if name == "copy_" else (args[0], kwargs.get("device") or args[0].device)
        )
        asynchronous = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
        if (source.device.type, target.type) == ("cuda", "cpu"):
            self.waits.append(place(name))
        elif (source.device.type, target.type) == ("cpu", "cuda"):
            pageable = source.nbytes > PINNED_BYTES and not hasattr(source, "is_in_pinned_memory")
            if pageable or not asynchronous:
                self.uploads.append(place(f"{name} of {source.nbytes} bytes"))


def place(what: str) -> str:
    """Say what happened, and where in our own files."""
    ours = [frame for frame in extract_stack() if "/deeptrain/" in frame.filename]
    return f"{what} at {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else what


def to_gpu(runtime: device.Runtime, model: nn.Module) -> nn.Module:
    """Move a model as Runtime.to_device does; module.to cannot exchange fake parameters."""
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            layout = torch.channels_last if parameter.ndim == 4 else torch.preserve_format
            there = parameter.detach().to(GPU, memory_format=layout)
            setattr(module, name, nn.Parameter(there, parameter.requires_grad))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, buffer.to(GPU))
    return model


def copied(tensor: Tensor, _) -> Tensor:
    values = tensor.detach().clone()
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def pin(tensor: Tensor) -> Tensor:
    pinned = tensor.clone()
    pinned.is_in_pinned_memory = True  # pyright: ignore
    return pinned


@pytest.fixture
def emulate(monkeypatch):
    """Return a function that builds a trainer on the fake GPU from overrides, and watches `act`."""
    monkeypatch.setattr(device, "pick_device", lambda *_: (GPU, "fake"))
    monkeypatch.setattr(device, "_set_up_cuda", lambda _: None)
    monkeypatch.setattr(device.Runtime, "to_device", to_gpu)
    monkeypatch.setattr(Tensor, "__deepcopy__", copied)  # torch's own corrupts the heap here
    monkeypatch.setattr("deeptrain.build.network.check_model", lambda *_: None)  # it looks at values
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its recurrent networks need a driver
    monkeypatch.setattr(torch.cuda, "default_generators", [torch.default_generator])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**33, 2**33))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.amp.grad_scaler, "_amp_definitely_not_available", lambda: False, raising=False)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "is_pinned", lambda tensor: hasattr(tensor, "is_in_pinned_memory"))
    tile_channels.cache_clear()

    def run(words: list[str], *, prepare=lambda trainer: None, act=take_step) -> Watch:
        setup = build.open_setup(compose_run([*DATA, "loggers=none", *words]))
        with FakeTensorMode(allow_non_fake_inputs=True):
            with Watch():
                trainer = build.trainer(setup)

            def backward(*_, **__):
                for parameter in trainer.parameters:
                    parameter.grad = torch.empty_like(parameter)

            monkeypatch.setattr(torch.autograd, "backward", backward)
            trainer.model.train()
            prepare(trainer)
            batches = trainer.train_loader.epoch(0)
            with Watch():
                take_step(trainer, *next(batches))  # constants are uploaded once
            with Watch() as watch:
                act(trainer, *next(batches))
        return watch

    yield run
    tile_channels.cache_clear()


def take_step(trainer, images, labels):
    """Take a step as train_epoch does."""
    trainer.meter.update(trainer.train_step(images, labels))
    trainer.progress.step += 1
    if trainer.average is not None:
        trainer.average.update(trainer.progress.step, 1.0, True)


SETTINGS = {
    "resnet": RESNET,
    "all augmentations": [ALL_AUGS, *(f"aug.{name}.probability=1" for name in AUGS), *SMALL],
    "all augmentations, of some images": [ALL_AUGS, *(f"aug.{name}.probability=0.7" for name in AUGS), *SMALL],
    "Mixup of an image": ["aug=mixup", "aug.mixup.per_image=true", "loss=mse", *SMALL],
    **{" ".join(words): [*words, "loss.class_weights=auto", *SMALL] for words in PARTS},
    "label smoothing": ["loss.label_smoothing=0.1", "aug=cutmix", *SMALL],
    **{f"{name} in fp16": [f"optimizer={name}", "precision=fp16", *SMALL] for name in ("sgd", "adam", "adamw")},
    **{name: [f"optimizer={name}", *RESNET] for name in ("muon", "lars", "lamb")},
    "bf16": ["precision=bf16", "clip_norm=1", "max_norm=2", *RESNET],
    "sam": ["gradient=sam", "accumulate=2", *RESNET],
    "accumulate=auto": ["accumulate=auto", *RESNET],
    "preact_resnet": ["model=preact_resnet", *BLOCKS, "model.norm=group"],
    "wide_resnet": ["model=wide_resnet", "model.depth=10", "model.width=0.25", "model.dropout=0.5"],
    **{
        f"stochastic depth of a {mode}": [*RESNET, "model.stochastic_depth=0.5", f"model.stochastic_depth_mode={mode}"]
        for mode in ("batch", "sample")
    },
    "vgg": [*VGG, "model.pool=fractional", "model.dropout=0.5", "model.drop_connect=0.5"],
    "alexnet": ["model=alexnet", "data.shape=[3,64,64]"],
    **{f"rnn of {cell}": [*RNN, f"model.cell={cell}"] for cell in ("elman", "gru", "lstm")},
    "whitening": ["data.whiten=zca", "data.subtract_image_mean=true", *SMALL],
    "crop and flip": ["data.crop_padding=4", "data.flip=true", *SMALL],
    "streamed": ["data.loader=stream", "workers=0", *SMALL],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_uploads_in_passing_and_waits_for_nothing(name, emulate):
    watch = emulate(SETTINGS[name])
    assert watch.launches > 30
    assert (watch.waits, watch.uploads, watch.mixed) == ([], [], [])


@pytest.mark.parametrize("name", ["rmsprop", "adagrad"])
def test_in_fp16_an_optimizer_without_a_fused_form_waits_once(name, emulate):
    """The scaler reads on the host whether the step is to be left out."""
    watch = emulate([*SMALL, f"optimizer={name}", "precision=fp16"])
    assert len(watch.waits) == 1 and watch.waits[0].startswith("_local_scalar_dense at trainer.py")


def test_batch_norm_over_all_processes_waits_for_nothing(emulate, monkeypatch):
    monkeypatch.setattr(sync_batch_norm.distributed, "all_reduce", lambda values: None)
    watch = emulate(RESNET, prepare=lambda trainer: sync_batch_norm.convert_sync_batch_norm(trainer.model))
    assert (watch.waits, watch.uploads, watch.mixed) == ([], [], [])


def log(trainer, *_):
    trainer.logger.start(trainer.plan, trainer.progress)
    trainer.log()


def validate(trainer, *_):
    trainer.validator.measure(trainer.stop, 0, 0.0)


def undo_copies(trainer, *_):
    recovery._restore(trainer, recovery._snapshot(trainer))


@pytest.mark.parametrize(("act", "places"), [(log, 1), (validate, 1), (undo_copies, 0)])
def test_what_is_read_is_read_in_one_place(act, places, emulate):
    watch = emulate([*SMALL, "model.norm=none", "average=ema"], act=act)
    assert len({wait.partition(" at ")[2] for wait in watch.waits}) == places
    assert all("running_metrics.py" in wait for wait in watch.waits)


@pytest.mark.parametrize(("words", "more"), [(["accumulate=auto"], 3), (["average=ema"], 3)], ids=str)
def test_copies_of_all_buffers_are_a_few_launches(words, more, emulate):
    """Batch norms have three buffers each. A launch for each would be many: the host is slower than small kernels."""
    assert emulate([*RESNET, *words]).launches <= emulate(RESNET).launches + more


def wait_for_value(images, rng):
    return images * int(images.float().mean().item() >= 0)


def wait_for_copy(images, rng):
    images.cpu()
    return images


def upload_and_wait(images, rng):
    return images + torch.zeros(3, 1, 1, dtype=torch.uint8).to(GPU)


def upload_from_pageable_memory(images, rng):
    return images + torch.from_numpy(rng.integers(2, size=images.shape)).to(GPU, non_blocking=True)


def index_on_the_host(images, rng):
    return images[torch.from_numpy(rng.permutation(len(images)))]


@pytest.mark.parametrize(
    ("augmentation", "field"),
    [
        (wait_for_value, "waits"),
        (wait_for_copy, "waits"),
        (upload_and_wait, "uploads"),
        (upload_from_pageable_memory, "uploads"),
        (index_on_the_host, "mixed"),
    ],
)
def test_the_watch_sees_what_it_looks_for(augmentation, field, emulate):
    def add(trainer):
        trainer.pipeline.augmentations.append(lambda images, targets, rng, _: (augmentation(images, rng), targets))

    found = emulate(SMALL, prepare=add)
    assert [name for name in ("waits", "uploads", "mixed") if getattr(found, name)] == [field]
