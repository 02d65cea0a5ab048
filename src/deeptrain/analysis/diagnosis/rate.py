"""Step 3: a search for the rate, in which the run's own takes part; where none learns, what keeps it from learning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from deeptrain.analysis.diagnosis.judge_rates import SLOW, Rates, learns_more, read_rates
from deeptrain.analysis.diagnosis.judgements import FEW_ERRORS, MANY_ERRORS
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.memorise import PASSES, train_sample
from deeptrain.analysis.diagnosis.subject import RATE, Opened, Subject
from deeptrain.analysis.find_lr import RateSearch, excess, find_lr
from deeptrain.analysis.short_runs import BLOCK, ShortRuns, preserved
from deeptrain.data.loader import Loader, ResidentLoader
from deeptrain.errors import UsageError
from deeptrain.runtime.random import generator

IMAGES = 1000  # of train, and of val, on which short runs are compared
STARTS = ("model.initialization", "model.norm")  # of the remedies, those that are tried where no rate learns
LABELLED = 512  # images whose labels are compared with permuted ones

Report = Callable[[str], None]


@dataclass
class Searches:
    """Searches for the rate of a set-up with changes, and its own run; each is made once.

    planned: the steps of the run that a rate is searched for; of a longer one the first part of it.
    """

    subject: Subject
    ledger: Ledger
    report: Report
    planned: int

    def search(self, changes: Sequence[str] = (), images: int = 0, own: float | None = None) -> RateSearch:
        def measure() -> RateSearch:
            with self.subject.opened(changes, images) as opened:
                trainer = opened.trainer
                trainer.plan.total_steps = min(trainer.plan.total_steps, self.planned)
                slices = slices_of(opened)
                try:
                    return find_lr(trainer, opened.rates_of, slices, self.report, own)
                finally:
                    for loader in slices:
                        loader.close()

        sample = f"of {images} images " if images else ""
        return self.ledger.once(f"search {sample}{' '.join(changes)}{'' if own is None else f' and {own:g}'}", measure)

    def found(self, changes: Sequence[str] = (), images: int = 0) -> float | None:
        """Return the rate that a search finds."""
        return self.search(changes, images).lr

    def errors_of_the_run(self, rate: float | None = None) -> float:
        """Return by how many standard errors the run itself is better than guessing, after `planned` steps at most.

        rate: another one than its own. A short run at a high rate may fail by chance where the run does not.
        """
        name = "the run itself" if rate is None else f"the run itself at {rate:g}"
        return self.ledger.once(name, lambda: self._errors_of_the_run(self.subject.rate if rate is None else rate))

    def _errors_of_the_run(self, rate: float | None) -> float:
        with self.subject.opened() as opened, preserved(opened.trainer) as start:
            slices, trainer = slices_of(opened), opened.trainer
            steps, loss = min(trainer.plan.total_steps, self.planned), math.inf
            rates = [rate or 0.0] * steps
            runs = ShortRuns(trainer, start, opened.rates_of, slices)
            try:
                for step, loss in enumerate(runs.losses(rates, trainer.schedule, steps), start=1):
                    self.report(f"the run itself: step {step} of {steps}, loss {loss:.4g}")
                score = runs.score()
                return excess(runs.guess(), score) if math.isfinite(loss) else -math.inf
            finally:
                for loader in slices:
                    loader.close()

    def with_changes(self, rates: Rates, seen: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Search the rate with the remedies of what was seen, without each regularizer, and from other starts.

        It ends with the first that learns far more.

        Yields what was changed, and the loss of the best rate then; inf if none is better than guessing.
        """
        starts = [change for change in self.subject.remedies() if change.startswith(STARTS)]
        for change in [*seen, *self.subject.regularizers(), *starts]:
            try:
                search = self.search(change.split())
            except UsageError:
                continue
            loss = search.races[-1].means[search.lr] if search.lr else math.inf
            yield change, loss
            if learns_more(rates, loss):
                return

    def true_and_permuted(self) -> tuple[float, float] | None:
        """Return the mean losses while some images are learned by heart, with their labels and with permuted ones.

        Labels that mean something are learned faster. None where the sample cannot be made, or no rate learns it.
        """
        return self.ledger.once("permuted labels", self._true_and_permuted)

    def _true_and_permuted(self) -> tuple[float, float] | None:
        try:
            rate = self.found((), LABELLED)
            if rate is None:
                return None
            with self.subject.opened([f"{RATE}={rate:g}"], LABELLED) as opened:
                return _learn_by_heart(opened, self.report)
        except UsageError:
            return None


def _learn_by_heart(opened: Opened, report: Report) -> tuple[float, float] | None:
    trainer, loader = opened.trainer, opened.trainer.train_loader
    if not isinstance(loader, ResidentLoader):
        return None
    steps = PASSES * len(loader)
    true = train_sample(trainer, steps, report, "its labels").mean_loss
    order = generator(0, "permuted labels").permutation(len(loader.host_labels))
    loader.host_labels = loader.host_labels[order]
    loader.labels = torch.from_numpy(loader.host_labels).to(loader.device)
    return true, train_sample(trainer, steps, report, "permuted labels").mean_loss


def slices_of(opened: Opened) -> list[Loader]:
    """Return loaders of images of train, and of val, on which short runs are compared."""
    return [opened.loader(part.evenly_spaced(IMAGES)) for part in (opened.train, opened.val)]


def measure_rates(searches: Searches, val_images: int, seen: Sequence[str] = ()) -> Rates:
    """Search the rate beside the run's own; where no rate learns much, look for what is in its way.

    seen: remedies of what step 1 has seen.
    """
    subject = searches.subject
    own = None if subject.is_rate_open else subject.rate
    search = searches.search(own=own)
    race = search.races[-1]
    best = race.scores[search.lr or race.best]
    span = search.span if search.lr else None
    rates = Rates(own, search.lr, span, race.steps, float(best.mean()), search.guess)
    if search.own is not None:
        errors = excess(search.own, best), excess(search.guesses, search.own)
        rates = replace(rates, own_loss=float(search.own.mean()), own_errors=errors[0], guess_errors=errors[1])
    if search.lr is not None and own is not None and rates.guess_errors < MANY_ERRORS:
        rates = replace(rates, guess_errors=searches.errors_of_the_run())
    if search.lr is None or rates.loss > SLOW * search.guess:
        rates = replace(rates, changes=tuple(searches.with_changes(rates, seen)))
        blocks = math.ceil(min(IMAGES, val_images) / BLOCK)
        rates = replace(rates, val_errors=excess(search.guesses[-blocks:], best[-blocks:]))
        if not read_rates(rates).failed and rates.val_errors < FEW_ERRORS:
            rates = replace(rates, by_heart=searches.true_and_permuted())
    return rates
