"""The zoo: broken set-ups on digits, MNIST or CIFAR-10, each a healthy one with one change, and the right verdicts.

Patients are numbered in the order in which they were planned, before any of them was examined. Odd numbers are open:
rules may be mended on them. Even numbers are locked: they are only counted. On MNIST and CIFAR-10 all are.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from deeptrain.analysis.diagnosis.subject import without

HERE = Path(__file__).resolve().parent
OWN = f"--config-dir={HERE / 'configs'}"


def on_mnist(root: str) -> str:
    """Return the words for as many images of MNIST as there are digits."""
    return f"{OWN} data=faulty data.of=mnist data.root={root} data.crop_padding=2"


def on_cifar10(root: str) -> str:
    """Return the words for 4,000 images of CIFAR-10."""
    return f"{OWN} data=faulty data.of=cifar10 data.root={root} data.crop_padding=4 data.flip=true"


FCN = "model=fcn model.hidden=[128,64] epochs=10"
LARGE = "model=fcn epochs=30"
SGD = "optimizer=sgd optimizer.lr=0.05"
NET = "model=resnet model.blocks=[1,1,1] model.widths=[8,8,16] epochs=5"
DEEP = "model=fcn model.hidden=[64,64,64,64,64,64,64,64] epochs=10"

RATE = ("better_rate", "better_settings")  # another rate or decay, which may make up for a part of the change
HIGH, LOW = ("rate_too_high", *RATE), ("rate_too_low", *RATE)
STRONG = ("regularized", "too_much_regularization")
START = ("signal_dies", "signal_explodes", "dead_units", "ignores_input", "start_too_bad", "unusual_start", "remedied")
SMALL = ("underfitted", "remedied", "cannot_memorise")
CODE = ("cannot_memorise", "ignores_input")


@dataclass(frozen=True)
class Patient:
    """base: words of the healthy twin. change: the words that make it ill. accepted: names of right verdicts.

    mended: whether a setting can mend it; code and data are mended by hand. mild: it may be called healthy, where it
    loses less than MILD of its twin's accuracy.
    """

    name: str
    base: str
    change: str
    accepted: tuple[str, ...]
    mended: bool = True
    mild: bool = False
    number: int = 0

    @property
    def words(self) -> str:
        changes = self.change.split()
        return " ".join([*without(self.base.split(), changes), *changes])

    def on(self, data: str) -> "Patient":
        """Return it with the images that some words name. Those of CIFAR-10 have three channels."""
        kept = [word for word in self.base.split() if word not in (OWN, "data=faulty")]
        change = IN_COLOR.sub(r"=[\1,\1,\1]", self.change) if "cifar10" in data else self.change
        return replace(self, base=f"{data} {' '.join(kept)}", change=change)

    @property
    def is_open(self) -> bool:
        return self.number % 2 == 1


IN_COLOR = re.compile(r"=\[(0[.\d]*|\d{2,})\](?= data|$)")  # a mean or deviation of one channel
MILD = 0.02  # of accuracy: a difference that 288 images of val can hardly show


def _code(name: str, fault: str, accepted: tuple[str, ...], base: str = "") -> Patient:
    return Patient(name, f"{OWN} model=faulty epochs=10 {base}".strip(), f"model.fault={fault}", accepted, False)


def _data(name: str, fault: str, accepted: tuple[str, ...], mended: bool = False) -> Patient:
    return Patient(name, f"{OWN} data=faulty {FCN}", f"data.fault={fault}", accepted, mended)


def _loss(name: str, fault: str, accepted: tuple[str, ...], mended: bool = False) -> Patient:
    return Patient(name, f"{OWN} {FCN} {SGD}", f"loss=faulty loss.fault={fault}", accepted, mended)


_ALL = [
    # rate, schedule, optimizer
    Patient("rate x100", FCN, "optimizer.lr=0.3", HIGH),
    Patient("rate x1000", FCN, "optimizer.lr=3", HIGH),
    Patient("rate /1000", FCN, "optimizer.lr=3e-6", LOW),
    Patient("rate /100, 3 epochs", FCN, "optimizer.lr=3e-5 epochs=3", LOW),
    Patient("rate x10", FCN, "optimizer.lr=0.03", HIGH, mild=True),
    Patient(
        "drop at 5 %",
        f"{FCN} {SGD}",
        "schedule=step schedule.milestones=[0.05] schedule.gamma=0.01",
        ("decayed_too_early", *LOW),
    ),
    Patient("warm-up 90 %", FCN, "schedule.warmup=0.9", ("warmup_too_long", *LOW), mild=True),
    Patient(
        "constant rate, too high",
        f"{FCN} {SGD}",
        "schedule=constant optimizer.lr=0.5",
        ("noisy_late", "plateau", "diverged", *HIGH),
        mild=True,
    ),
    Patient("weight decay 1", f"{FCN} {SGD}", "optimizer.weight_decay=1", (*STRONG, *RATE)),
    Patient("l2 of 1", f"{FCN} {SGD}", "penalty=l2 penalty.strength=1", STRONG),
    Patient("momentum 0.999", f"{FCN} {SGD}", "optimizer.momentum=0.999", HIGH),
    Patient("clip at 1e-4", f"{FCN} {SGD}", "clip_norm=1e-4", ("clipped", "remedied", "rate_too_low", *RATE)),
    Patient("1 epoch", f"{FCN} {SGD}", "epochs=1", ("train_longer", *LOW), mild=True),
    # start
    _code("all weights 0", "zero", (*START, "cannot_memorise")),
    _code("all weights 0.01", "same", (*START, "cannot_memorise")),
    Patient("weights 1e-4, deep", f"{DEEP} {SGD}", "model.initialization=normal model.init_std=1e-4", START),
    Patient("weights 1, deep", f"{DEEP} {SGD}", "model.initialization=normal model.init_std=1", (*START, *HIGH)),
    Patient("head x100", f"{OWN} model=faulty epochs=10 {SGD}", "model.fault=head", (*START, *HIGH), False, mild=True),
    _code("biases -10", "biases", (*START, "cannot_memorise")),
    # architecture
    Patient("8 sigmoid layers", DEEP, "model.activation=sigmoid", START),
    Patient(
        "20 tanh layers",
        FCN,
        f"model.hidden=[{','.join(['32'] * 20)}] model.activation=tanh model.initialization=normal model.init_std=0.05",
        START,
    ),
    _code("no activation", "no_activation", ("linear", *SMALL, "no_signal", "below_linear")),
    Patient(
        "20 layers without norm",
        "model=resnet model.blocks=[3,3,3] model.widths=[8,8,8] epochs=4",
        "model.norm=none",
        (*START, *HIGH),
        mild=True,
    ),
    Patient("bottleneck of 1", FCN, "model.hidden=[128,1,128]", SMALL),
    Patient("2 hidden units", FCN, "model.hidden=[2]", SMALL),
    _code("softmax before the loss", "softmax", ("probabilities",)),
    _code("ReLU on the logits", "relu_on_logits", ("dead_units", *CODE)),
    _code("frozen body", "frozen", ("not_trained", *CODE)),
    _code("dead branch", "dead_branch", ("not_trained",)),
    # regularization
    Patient("dropout 0.95", FCN, "model.dropout=0.95", STRONG),
    Patient("drop_connect 0.95", FCN, "model.drop_connect=0.95", STRONG),
    Patient("stochastic depth 0.95", NET, "model.stochastic_depth=0.95", STRONG, mild=True),
    Patient("label smoothing 0.9", FCN, "loss.label_smoothing=0.9", STRONG, mild=True),
    Patient("cutout of the image", FCN, "aug=cutout aug.cutout.size=1.0", STRONG),
    Patient("RandAugment at its most", FCN, "aug=randaugment aug.randaugment.magnitude=30", STRONG, mild=True),
    # data
    _data("labels shuffled", "shuffled", ("labels_are_noise", "no_signal", "no_transfer")),
    _data("half of the labels random", "half_random", ("labels_are_wrong",)),
    _data("95 % one class", "imbalanced", ("imbalance",), mended=True),
    _data("one class", "one_class", ("one_class",)),
    Patient("pixels 0 to 255", FCN, "data.mean=[0] data.std=[0.004]", ("input_scale", "remedied", *HIGH), mild=True),
    Patient(
        "pixels / 1000",
        f"{FCN} {SGD}",
        "data.mean=[0] data.std=[300]",
        ("input_scale", "remedied", "signal_dies", *LOW),
        mild=True,
    ),
    Patient(
        "wrong mean and deviation",
        FCN,
        "data.mean=[0.9] data.std=[0.01]",
        ("input_scale", "remedied", *HIGH),
        mild=True,
    ),
    _data("val inverted", "inverted", ("split_differs", "no_transfer")),
    _data("train copied into val", "copied", ("leak",)),
    _data("images twice, other labels", "contradictory", ("contradictions",)),
    Patient("200 images", LARGE, "data.train_images=200", ("overfitted",)),
    # code
    _loss("loss negated", "negated", ("loss_upside_down",)),
    _loss("mean over the wrong axis", "wrong_axis", ("loss_mixed",)),
    _code("reshape across the batch", "mixed", ("batch_mixed",)),
    Patient("batch norm remembers 1e-4", NET, "model.norm_momentum=1e-4", ("modes_differ",), mild=True),
    Patient(
        "batches of 2 with batch norm",
        f"{FCN} model.norm=batch",
        "batch_size=2 epochs=2",
        ("modes_differ", *HIGH),
        mild=True,
    ),
    _loss("loss x 1e-6", "tiny", ("remedied", *LOW), mended=True),
]
PATIENTS = [Patient(**{**vars(patient), "number": number}) for number, patient in enumerate(_ALL, start=1)]
