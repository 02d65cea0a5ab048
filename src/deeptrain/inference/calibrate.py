"""What a run's held-out validation images tell about its answers."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deeptrain.inference.predictor import Predictor
from deeptrain.run import conformal
from deeptrain.training import checkpoint


def true_class_probabilities(
    run_dir: Path, path: Path, network: Predictor, overrides: Sequence[str] = ()
) -> list[float]:
    """Return the probability of each validation image's true class, sorted: kept by the run, or computed and kept.

    Computing needs the data of the run, and composes its settings.
    """
    weights = checkpoint.digest(network.model.state_dict())
    if (saved := conformal.load(run_dir, weights)) is not None:
        return saved
    from deeptrain.config.compose import compose_run
    from deeptrain.inference.evaluate import answer
    from deeptrain.metrics import conformal as sets
    from deeptrain.run import defaults

    words = list(overrides)
    run = compose_run([*defaults.load_overrides(run_dir, words), *words])
    found = answer(run, path, "val", words)
    with suppress(OSError):  # a folder that others may only read
        return conformal.save(run_dir, found.weights, found.logits, found.labels, network.loss)
    return sets.true_class_probabilities(found.logits, found.labels, network.loss)
