"""Which setting is best? python scripts/tune.py model=resnet 'optimizer.lr=log(1e-4,1e-1)' trials=40"""

from pathlib import Path

from deeptrain.commands.cli import answer, train

USAGE = """\
python scripts/tune.py key=RANGE ... [trials=40] [hours=2] [confirm=5x3] [group=option ...] [key=value ...]
python scripts/tune.py resume=SEARCH [trials=+20] [confirm=5x3] [export=FILE]

Draws settings from ranges, trains each, and learns from the results where to look next. Trial 0 has your own settings.
A trial that is worse than half of the finished ones were at the same epoch is pruned. The folder is that of a sweep.

RANGE                 log(1e-4,1e-1), interval(0,0.5), range(2,9), or several values: 'aug=[],[cutout],[mixup]'
trials=40             so many in all; with resume=, trials=+20 adds more
hours=2               no trial is started after that
confirm=5x3           then the best 5 settings on 3 other seeds, beside your own: the winner is the best of these runs
sampler=auto          gp, a Gaussian process, or tpe where that is bad (long lists, settings of one option); random
early_stop.prune=null trains every trial to its end
export=FILE           the trials for optuna-dashboard
jobs=1                so many trials at a time; dry_run=true, retry=failed, fail_fast=true, dir= as in a sweep

python scripts/tune.py model=resnet 'optimizer.lr=log(1e-4,1e-1)' 'optimizer.weight_decay=log(1e-5,1e-1)' trials=40
"""


def tune(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _tune)


def _tune(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.config.override import last_value, override_key
    from deeptrain.errors import UsageError
    from deeptrain.runtime.paths import quote_setting
    from deeptrain.search import export, launch
    from deeptrain.sweep import plan

    words = settings_of_a_run(arguments, "a search", ())
    if any(override_key(word) == "export" for word in words):
        return export.main(words)
    if named := next((word for word in words if "=" not in word and plan.is_search(Path(word))), None):
        raise UsageError([f"{named}: write {quote_setting('resume', named)}"])
    if "resume=" in words:
        raise UsageError(["resume= names nothing; is a variable of your shell empty?"])
    if last_value(words, "resume") is None:
        return launch.search(words, train)
    if (begun := plan.named(words)) is None:
        raise UsageError([f"resume={last_value(words, 'resume')}: is no search; name its folder, in outputs/sweeps"])
    return launch.go_on(begun, words, train)
