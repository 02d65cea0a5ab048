"""k-fold cross-validation as a sweep: folds=5 holds out each fifth of the training images in turn."""

from collections.abc import Sequence

from deeptrain.config.override import last_value, override_key, override_value
from deeptrain.config.repeats import FOLD, FOLDS, SEED, SPLIT_SEED
from deeptrain.errors import UsageError

WORD = "folds"
MOST = 1000  # runs, of which each is checked before the first


def take_out(words: Sequence[str]) -> tuple[int, list[str]]:
    """Return k of folds=k, 0 without, and the other words; UsageError for no such number, or a split beside it."""
    values = [override_value(word) for word in words if override_key(word) == WORD]
    rest = [word for word in words if override_key(word) != WORD]
    if not values:
        return 0, rest
    text = values[-1]
    if not text.isdecimal() or not 2 <= int(text) <= MOST:
        raise UsageError([f"{WORD}={text}: must be a whole number from 2 to {MOST}; write {WORD}=5"])
    remedies = {
        FOLDS: "leave out one of them",
        FOLD: f"leave out one of them; data.folds={text} {FOLD}=0 holds out a fold alone",
        "data.val_fraction": f"leave it out, since 1/{text} of the images is held out",
    }
    messages = [
        f"{word}: does not go with {WORD}={text}; {remedies[key]}"
        for word in rest
        if (key := override_key(word)) in remedies
    ]
    if messages:
        raise UsageError(messages)
    return int(text), rest


def axis(folds: int) -> list[str]:
    """Return the words of a sweep over all folds."""
    return [f"{FOLDS}={folds}", f"{FOLD}={','.join(map(str, range(folds)))}"] if folds else []


def deal_by_seed(words: list[str]) -> list[str]:
    """Add to a run's words that its seed deals the folds too: another seed is another cross-validation."""
    seed, typed = last_value(words, SEED), any(override_key(word) == SPLIT_SEED for word in words)
    return words if seed is None or typed else [*words, f"{SPLIT_SEED}={seed}"]


def hold_out(words: list[str], swept: dict[str, str], folds: int, fold: int) -> tuple[list[str], dict[str, str]]:
    """Return a job's words, and what is swept of them, with a fold held out."""
    return deal_by_seed([*words, f"{FOLDS}={folds}", f"{FOLD}={fold}"]), {**swept, FOLD: str(fold)}


def check_seeds(folds: int, words: Sequence[str], seeds: Sequence[str | None]) -> None:
    """Raise UsageError if several seeds are to share a split: they would look more alike than they are."""
    typed = [word for word in words if override_key(word) == SPLIT_SEED]
    if folds and typed and len(seeds) > 1:
        raise UsageError([f"{typed[-1]}: with {WORD}={folds} each of several seeds deals its own folds; leave it out"])
