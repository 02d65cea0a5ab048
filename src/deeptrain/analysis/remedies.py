"""The setting to try next, as an override, for each thing that a reading finds. No torch."""

from collections.abc import Sequence

from deeptrain.analysis.run_record import USUAL_RATES, Record

STRONG = {  # settings: more than so much of one keeps most networks from learning; and what to try instead
    "model.dropout": (0.8, "0.2"),
    "model.drop_connect": (0.8, "0.2"),
    "model.stochastic_depth": (0.8, "0.1"),
    "loss.label_smoothing": (0.6, "0.1"),
    "penalty.strength": (0.05, "1e-4"),
}
ENOUGH, MOST = 500, 8  # steps in which small data is learned; times as long that a run is made, at most
DECAY = 0.02  # of the weights in a step, rate times decay: then they are mostly decayed


def strong(record: Record) -> tuple[str, str] | None:
    """Return the setting that regularizes beyond what most networks stand, and what to try instead."""
    for key, (most, remedy) in STRONG.items():
        if record.number(key) >= most:
            return f"{key}={record.number(key):g}", f"{key}={remedy}"
    usual_rate = USUAL_RATES.get(record.option("optimizer"), 0.0)  # a higher one is a fault of its own
    decay = record.number("optimizer.weight_decay") * min(record.number("optimizer.lr"), 3 * usual_rate)
    if decay >= DECAY:
        usual = "5e-4" if record.option("optimizer") == "sgd" else "0.05"
        return f"weight decay takes {min(decay, 1.0):.0%} of the weights in a step", f"optimizer.weight_decay={usual}"
    return None


def start_remedy(record: Record) -> tuple[str, str]:
    """Return what to try where nothing is learned at a usual rate, and the cause that it would remove."""
    initialization, norm = record.setting("model.initialization"), record.setting("model.norm")
    if initialization is not None and initialization == "normal":
        return "model.initialization=kaiming", "the first weights are too small or too large"
    if norm == "none":
        return "model.norm=batch", "the signal dies on its way through the layers"
    return "overfit=64", "first see whether it learns a few images by heart"


def slower(record: Record, factor: float = 0.1) -> str:
    ratio = record.rate_ratio
    factor = min(factor, 1 / ratio) if ratio is not None and ratio > 10 else factor
    return _rate(record, factor)


def faster(record: Record) -> str:
    ratio = record.rate_ratio
    return _rate(record, min(1 / ratio, 1000.0) if ratio else 10.0)


def regularizer(record: Record) -> str:
    """Return all images where only a part was asked for, else the regularizer to add."""
    if record.number("data.train_images"):
        return "data.train_images=null"
    augs = list(record.config.get("aug") or {})
    if not record.mixes:
        return f"'aug=[{','.join([*augs, 'mixup'])}]'" if augs else "aug=mixup"
    if not record.number("loss.label_smoothing") and record.option("loss") == "CrossEntropy":
        return "loss.label_smoothing=0.1"
    return f"optimizer.weight_decay={3 * record.number('optimizer.weight_decay') or 5e-4:g}"


def times_longer(steps: int) -> int:
    """Return how many times as long a run is to be: twice, more of one that has hardly begun."""
    return min(max(2, -(-ENOUGH // max(steps, 1))), MOST)


def longer(record: Record) -> str:
    times = times_longer(int(record.rows[-1]["step"]) if record.rows else ENOUGH)
    if record.setting("limit_steps"):
        return f"limit_steps={times * int(record.number('limit_steps'))}"
    return f"epochs={times * int(record.number('epochs') or 1)}"


def larger(record: Record) -> str:
    hidden, width = record.setting("model.hidden"), record.setting("model.width")
    if hidden == []:
        return "'model.hidden=[128]'"
    if isinstance(hidden, list):
        return f"'model.hidden=[{','.join(str(max(2 * int(size), 32)) for size in hidden)}]'"
    widths = record.setting("model.widths")
    if isinstance(widths, Sequence) and widths and not isinstance(widths, str):
        return f"'model.widths=[{','.join(str(2 * int(size)) for size in widths)}]'"
    return f"model.width={2 * (width or 1):g}" if width is not None else ""


def _rate(record: Record, factor: float) -> str:
    rate = record.number("optimizer.lr") * factor
    return f"optimizer.lr={float(f'{rate:.1g}'):g}" if rate else ""
