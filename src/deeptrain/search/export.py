"""A search as a journal of Optuna, for optuna-dashboard and Optuna's own analyses."""

from collections.abc import Sequence
from typing import Any

from deeptrain.config.override import override_key, override_value
from deeptrain.errors import UsageError
from deeptrain.runtime import terminal
from deeptrain.runtime.paths import quote, read_path
from deeptrain.search import sampler, trials
from deeptrain.search.launch import check_package
from deeptrain.search.space import Space
from deeptrain.search.study import Study
from deeptrain.search.trials import Objective, Trial
from deeptrain.sweep import plan as plans
from deeptrain.sweep.ledger import Ledger


def main(words: Sequence[str]) -> int:
    """Write export=FILE for the search that resume= names; return the exit code."""
    check_package()
    file = override_value(next(word for word in words if override_key(word) == "export"))
    path = plans.named(list(words))
    if path is None or not plans.is_search(path):
        raise UsageError([f"export={file}: needs the folder of a search, as in resume=outputs/sweeps/DATE/TIME"])
    if other := [word for word in words if override_key(word) not in ("export", "resume")]:
        raise UsageError([f"{other[0]}: does not go with export=; leave it out"])
    if not file or read_path(file).exists():
        raise UsageError([f"export={file}: {'names nothing' if not file else 'is there already'}; name a new file"])
    if not read_path(file).parent.is_dir():
        raise UsageError([f"export={file}: the folder {read_path(file).parent} does not exist; make it first"])
    plan = plans.load(path, words)
    known, objective = trials.read(Ledger(plan))
    write(Study.of(plan.words).space, known, objective, str(read_path(file)), path.resolve().name)
    terminal.show(f"export   {len(known)} trials in {file}; look at them: optuna-dashboard {quote(file)}")
    return 0


def write(space: Space, known: Sequence[Trial], objective: Objective, file: str, name: str) -> None:
    """Write the trials, each with its state, its values by epoch, its folder and its reason."""
    optuna = sampler.load()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    direction = "maximize" if objective.higher_is_better else "minimize"
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(file)), study_name=name, direction=direction)
    study.add_trials([_trial(space, trial) for trial in known])


def _trial(space: Space, trial: Trial) -> Any:
    from optuna.trial import TrialState, create_trial

    states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "open": TrialState.WAITING}
    parameters = space.parameters(trial.values) or {}
    notes = {"folder": str(trial.job.folder), "reason": trial.reason, "settings": trial.job.name}
    return create_trial(
        state=states.get(trial.status, TrialState.COMPLETE),
        value=trial.value,
        params=parameters,
        distributions=sampler.distributions(space, list(parameters)),
        user_attrs={key: value for key, value in notes.items() if value},
        intermediate_values={int(epoch): value for epoch, value in trial.curve.items()},
    )
