"""The command line: flags, help, and a line for each mistake. All of these are answered without torch."""

import gc
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable

import deeptrain
from deeptrain.config.hydra_words import takes_value, with_our_dir
from deeptrain.runtime import terminal
from deeptrain.runtime.resources import CLONE_COMMANDS, CONFIGS, IS_CLONE, command
from deeptrain.runtime.world import get_world, was_torchrun
from deeptrain.schema import suggest

OPTION_WIDTH = 19  # of the longest name of an option
HELP = ("-h", "--help", "-help", "help")
NODES = ("validate.", "early_stop.", "checkpoint.", "log.")
COMPLETION = ("-sc", "--shell-completion")

USAGE = """\
python train.py [group=option ...] [key=value ...]       one run
python train.py -m key=value,value ...                   a sweep over all combinations

  -h, --help         this page                    --config-dir DIR   further options of your own
  -m, --multirun     sweep                        --debug            show the full traceback of an error
  --version          of deeptrain                 --cfg job          the whole configuration, without training
  explain=mixup      what a method does, what to expect of it, sensible values; explain= lists them all
"""

MAIN_USAGE = """\
deeptrain train [group=option ...] [key=value ...]    one run, or with -m a sweep; deeptrain train --help lists all
deeptrain evaluate RUN                                the best weights of a run on the test split
deeptrain predict RUN PICTURE|FOLDER|-                what the network of a run says of pictures
deeptrain read RUN...                                 what the curves of a run show, and what to try
deeptrain ensemble RUN RUN ...                        several runs as one network
deeptrain export RUN to=onnx                          one file of a network for other programs
deeptrain report FOLDER...                            runs compared: what is better, and is it more than chance
deeptrain ablate 'over=[METHOD,...]' [...]            a sweep: none of the methods, each, all, all but one
deeptrain tune 'optimizer.lr=log(1e-4,1e-1)' [...]    search the best setting in ranges
deeptrain preview [group=option ...]                  what a run would see, and its learning rate
deeptrain check-data DIR                              read a folder of pictures before training on it
deeptrain find-lr [group=option ...] [key=value ...]  search the learning rate of a run by short runs
deeptrain diagnose [group=option ...] [key=value ...] test a set-up in steps, and say what is wrong
"""

TORCHRUN_SWEEP = (
    "-m: a sweep does not go with torchrun; run python train.py -m ... (a process a run), "
    "or torchrun ... train.py for each run"
)
TIMEOUT = 20  # seconds for the first of several processes to come to the same mistakes

EXAMPLES = """\
python train.py                                          handwritten digits, a small ResNet: a minute
python train.py model=vgg 'aug=[cutout,mixup]' optimizer.lr=0.05 epochs=10
python train.py data=image_folder data.root=pictures     pictures in folders named by class
python train.py -m model=fcn,resnet aug=none,mixup seed=0,1,2
python train.py folds=5 model=fcn                        cross-validation: each fifth is held out in turn
python train.py resume=outputs/...                       go on, or with epochs=60 train longer
torchrun --nproc-per-node 2 train.py batch_size=256       two GPUs, 128 images each
python train.py explain=label_smoothing                  what it does, what to expect, sensible values, the paper
"""


def enter(command: Callable[[list[str]], int]) -> int:
    """Run a command on the words that this process was started with."""
    terminal.prepare()
    try:
        return command(sys.argv[1:])
    finally:
        gc.disable()  # else Python looks at all objects of torch once more, for 0.25 s
        if "triton" not in sys.modules:  # it lists frozen objects as leaks
            gc.freeze()


def main(arguments: list[str] | None = None) -> int:
    """Run the installed command `deeptrain`: a subcommand and its arguments."""
    if arguments is None:
        return enter(main)
    from deeptrain.commands.ablate import ablate
    from deeptrain.commands.check_data import check_data
    from deeptrain.commands.diagnose import diagnose
    from deeptrain.commands.ensemble import ensemble
    from deeptrain.commands.evaluate import evaluate
    from deeptrain.commands.export import export
    from deeptrain.commands.find_lr import find_lr
    from deeptrain.commands.predict import predict
    from deeptrain.commands.preview import preview
    from deeptrain.commands.read import read
    from deeptrain.commands.report import report
    from deeptrain.commands.tune import tune

    commands = {
        "train": train,
        "evaluate": evaluate,
        "predict": predict,
        "ensemble": ensemble,
        "export": export,
        "preview": preview,
        "read": read,
        "report": report,
        "ablate": ablate,
        "tune": tune,
        "check-data": check_data,
        "find-lr": find_lr,
        "diagnose": diagnose,
    }
    name, *rest = arguments or ["--help"]
    if name == "--version":
        return show(f"deeptrain {deeptrain.__version__}")
    if name in HELP:
        return show(MAIN_USAGE)
    if name not in commands:
        terminal.report(f"error: {name}: {suggest(name, commands)}; for example deeptrain train model=resnet")
        return 2
    return commands[name](rest)


def train(arguments: list[str]) -> int:
    """Run train.py's command line; return 0 when done, 1 failed, 2 for mistakes in the command, 130 interrupted."""
    if set(HELP) & set(arguments):
        return guarded(lambda: _help([word for word in arguments if word not in HELP]))
    if "--version" in arguments:
        return show(f"deeptrain {deeptrain.__version__}")
    if any(flag.partition("=")[0] in COMPLETION for flag in arguments):
        return _hand_to_hydra()

    def run() -> int:
        flags, words = split_flags(arguments)
        if "explain" in (word.partition("=")[0] for word in words):
            return _explain(words)
        from deeptrain.config.compose import compose_run
        from deeptrain.errors import UsageError
        from deeptrain.run import launch
        from deeptrain.sweep import plan

        if "cfg" in flags:
            run = compose_run(words)
            for note in run.renamed:
                terminal.report(f"warning: {note}")
            return show(run.yaml.rstrip())
        begun = plan.named(words)
        if begun or "multirun" in flags or plan.is_declared(words):
            from deeptrain.sweep import launch as sweeps

            if was_torchrun():
                raise UsageError([in_this_installation(TORCHRUN_SWEEP)])
            if begun and plan.is_search(begun):
                from deeptrain.search import launch as searches

                return searches.go_on(begun, words, train)
            return sweeps.go_on(begun, words, train) if begun else sweeps.sweep(with_our_dir(words, "sweep"), train)
        return launch.main(with_our_dir(words, "run"))

    return guarded(run, debug="--debug" in arguments)


def answer(arguments: list[str], usage: str, command: Callable[[list[str]], int], *, alone: bool = False) -> int:
    """Run one of the smaller commands, or show its usage; alone: it needs no words."""
    if {"-h", "--help"} & set(arguments) or not (arguments or alone):
        return show(in_this_installation(usage))
    return guarded(lambda: command(arguments), debug="--debug" in arguments)


def guarded(command: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command; tell mistakes in a line each, and the unforeseen in one line with the way to its traceback."""
    from deeptrain.errors import UsageError, error_line

    if debug:
        os.environ["DEEPTRAIN_DEBUG"] = "1"  # for what runs deeper down too
    debug = bool(os.environ.get("DEEPTRAIN_DEBUG"))
    try:
        return command()
    except UsageError as mistakes:
        if debug:
            raise
        lines = [f"error: {line}" for line in mistakes.lines]
        get_world().report(lambda: terminal.report(*lines), TIMEOUT)  # rank 0 comes to the same mistakes
        return 2
    except KeyboardInterrupt:
        get_world().report(lambda: terminal.report("interrupted"))
        return 130
    except OSError as error:
        if debug or error.filename is None:
            raise
        terminal.report(f"error: {error_line(error)}")
        return 1
    except Exception as error:
        if debug:
            raise
        first = str(error).strip().partition("\n")[0]
        terminal.report(f"error: {type(error).__name__}: {first[:1000]} (add --debug for the traceback)")
        return 1


def in_this_installation(text: str) -> str:
    """Name commands as they are typed here: `deeptrain evaluate` instead of scripts/evaluate.py outside a clone."""
    for name, in_a_clone in CLONE_COMMANDS.items():
        text = text.replace(in_a_clone, command(name))
    return text if IS_CLONE else text.replace(" train.py", " -m deeptrain train")  # after torchrun


def show(page: str) -> int:
    """Show a page of our own, with its colours; return the exit code."""
    if reason := terminal.write(f"{page}\n", sys.stdout):
        terminal.report(f"error: standard output: {reason}")
    return int(bool(reason))


def split_flags(arguments: list[str]) -> tuple[set[str], list[str]]:
    """Separate our few flags from the words that are composed; the folder of --config-dir is one of the words."""
    flags, words = set(), []
    rest = list(arguments)
    while rest:
        word, *rest = rest
        name, _, value = word.partition("=")
        if word == "#":  # zsh hands over what stands behind it; bash does not
            break
        if word in ("-m", "--multirun"):
            flags.add("multirun")
        elif word == "--debug":
            flags.add("debug")
        elif name in ("--cfg", "-c"):
            flags.add("cfg")
            if not value:
                rest = rest[1:]  # Hydra's job, hydra, all: there is one configuration
        elif name in ("--config-dir", "-cd"):
            words.append(f"--config-dir={value or ''.join(rest[:1])}")
            rest = rest if value else rest[1:]
        elif takes_value(name) and not value:
            words.append(word)  # which is answered; what follows it belongs to it
            rest = _without_value(rest)
        else:
            words.append(word)
    return flags, words


def _without_value(rest: list[str]) -> list[str]:
    return rest[1:] if rest and "=" not in rest[0] and not rest[0].startswith("-") else rest


def _help(arguments: list[str]) -> int:
    """Show the page of all options, or those of the options and settings that stand beside --help."""
    from deeptrain.commands.explain import explain
    from deeptrain.config.user_modules import split_config_dirs

    names, config_dirs = split_config_dirs(split_flags(arguments)[1])
    names = [name for name in names if not name.startswith("-")]
    if not names:
        return show(in_this_installation(help_page()))
    listed = [re.fullmatch(r"(\w+=)\[(.*)\]", name) for name in names]  # aug=[cutout,mixup]
    pairs = zip(names, listed, strict=True)
    each = [word for name, found in pairs for word in (_items(found) if found else [name])]
    return show(in_this_installation(explain(each, config_dirs)))


def _items(found: re.Match[str]) -> list[str]:
    return [found[1] + item for item in found[2].split(",")]


def _explain(words: list[str]) -> int:
    from deeptrain.commands.explain import explain
    from deeptrain.errors import UsageError

    names = [word.partition("=")[2] for word in words if word.partition("=")[0] == "explain"]
    if len(names) < len(words):
        raise UsageError(["explain=: stands alone; leave out the other settings"])
    return show(in_this_installation(explain(names)))


def help_page() -> str:
    """Compose the help from the configuration files: each option's first comment line says what it is for."""
    from deeptrain.commands.explain import describe

    width = shutil.get_terminal_size((120, 24)).columns
    lines = [USAGE, "Groups and their options (* is the default)"]
    text = (CONFIGS / "train.yaml").read_text("utf-8")
    defaults = dict(re.findall(r"^  - (\w+): (\w+)", text, flags=re.MULTILINE))
    for group in dict.fromkeys([*defaults, *sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())]):
        options = [(file.stem, describe(file)) for file in sorted((CONFIGS / group).glob("*.yaml"))]
        for folder in sorted(path for path in (CONFIGS / group).iterdir() if path.is_dir()):
            names = ", ".join(sorted(file.stem for file in folder.glob("[!_]*.yaml")))
            options.append((f"{folder.name}/...", names))
        for index, (option, what) in enumerate(options):
            mark = "*" if defaults.get(group) == option else " "
            label = f"{group}=" if index == 0 else ""
            lines += _wrapped(f"  {label:<11}{mark}{option:<{OPTION_WIDTH}} ", what, width)
    lines += ["", "Settings of every run (those of an option: --cfg job, or explain=)"]
    node = ""
    for indent, key, value, comment in re.findall(
        r"^( *)(\w+):(?: +([^#\s]+))?(?: +# (.*))?$", text, flags=re.MULTILINE
    ):
        node = node if indent else f"{key}."
        setting = f"{node}{key}" if indent else key
        if value and (comment if not indent else node in NODES):
            lines += _wrapped(f"  {f'{setting}={value}':<28} ", comment, width)
    return "\n".join([*lines, "", "Examples", *(f"  {line}" for line in EXAMPLES.splitlines())])


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """Break a text between words; further lines stand below its start."""
    first, *rest = textwrap.wrap(text, max(20, width - len(label)), break_long_words=False) or [""]
    return [label + first, *(" " * len(label) + part for part in rest)]


def _hand_to_hydra() -> int:
    """Let Hydra complete what is typed into a shell."""
    import hydra

    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(lambda _: None)()
    return 0
