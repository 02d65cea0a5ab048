"""Which of several methods helps? python scripts/ablate.py model=resnet 'over=[cutout,mixup]' seeds=5"""

from deeptrain.commands.cli import answer, train

USAGE = """\
python scripts/ablate.py 'over=[METHOD,METHOD,...]' [seeds=5] [pairs=true] [group=option ...] [key=value ...]

Trains with none of the methods, with each alone, with all of them, and with all but one. It is an ordinary sweep: it
takes jobs=, dry_run=, fail_fast= and dir=, goes on with python train.py resume=SWEEP, and ends with a report.

METHOD                an option of aug, penalty or average (cutout, l2, ema); or label_smoothing, stochastic_depth,
                      dropout, drop_connect, max_norm, sam, flip with a usual value; or what it sets: model.dropout=0.3
seeds=5               repeats of each setting; a list names the seeds: 'seeds=[3,4,5]'
pairs=true            also every two methods together

python scripts/ablate.py model=resnet 'over=[cutout,mixup,label_smoothing,stochastic_depth]' seeds=5 jobs=auto
"""


def ablate(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _ablate)


def _ablate(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.sweep import ablation, launch

    words = settings_of_a_run(arguments, "an ablation", ())
    return launch.sweep(words, train, ablation.lay_out)
