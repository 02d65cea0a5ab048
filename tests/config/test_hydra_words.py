"""Hydra's habits: each of its flags and settings works, or is answered in one line with ours."""

import argparse
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from deeptrain.commands.cli import train
from deeptrain.config.hydra_words import FLAGS, SETTINGS, flag_answer, setting_answer

TAKEN = {"--help", "--version", "--cfg", "--multirun", "--config-dir", "--shell-completion"}
OPTIONS = [action for action in get_args_parser()._actions if action.option_strings]
LONG = {max(action.option_strings, key=len): action for action in OPTIONS}


def error_of(capsys, *arguments: str) -> str:
    assert train(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_no_flag_of_hydra_is_forgotten():
    assert {name for names in FLAGS for name in names[:1]} | TAKEN == set(LONG)


@pytest.mark.parametrize("name", sorted(set(LONG) - TAKEN))
def test_every_flag_is_answered_in_one_line_in_each_way_it_is_written(name, capsys):
    action = LONG[name]
    for flag in action.option_strings:
        assert flag_answer(flag) is not None
        takes_value = not isinstance(action, argparse._StoreTrueAction)
        for words in [[flag, "value"], [f"{flag}=value"]] if takes_value else [[flag]]:
            for others in (["epochs=2"], ["-m", "seed=0,1"]):
                assert error_of(capsys, *words, *others).startswith(f"error: {words[0]}: {flag_answer(flag)}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hydra/launcher=submitit_slurm", "write launcher=slurm beside -m, with launcher.partition="),
        ("hydra/launcher=submitit_local", "launcher.cluster=local"),
        ("hydra/launcher=ray", "write launcher=ray beside -m"),
        ("hydra/launcher=ray_aws", "write launcher=ray beside -m"),
        ("hydra/launcher=joblib", "write jobs=auto beside -m"),
        ("hydra/launcher=mine", "launcher=slurm or launcher=ray"),
        ("hydra.launcher.n_jobs=2", "write jobs=NUMBER"),
        ("hydra.launcher.timeout_min=60", "write launcher.time=MINUTES"),
        ("hydra/sweeper=optuna", "searches"),
        ("hydra.sweeper.n_trials=20", "searches"),
        ("hydra.sweep.subdir=x", "write dir=FOLDER"),
        ("hydra.job.chdir=true", "stays in the folder"),
        ("hydra.job.name=x", "write dir=FOLDER"),
        ("hydra/job_logging=disabled", "run.log"),
        ("hydra.verbose=true", "--debug"),
        ("hydra.searchpath=[file:///x]", "--config-dir"),
        ("+hydra.callbacks.x._target_=os.system", "callbacks are not taken"),
        ("hydra.nothing=1", "--help lists ours"),
    ],
)
def test_settings_of_hydra_are_answered_in_one_line(word, said, capsys):
    line = error_of(capsys, word)
    assert line.startswith(f"error: {word}: ") and said in line


def test_only_settings_of_hydra_are_answered():
    assert setting_answer("model.hydra") is None and setting_answer("hydrant") is None
    assert all(setting_answer(key) == answer for key, answer in SETTINGS.items())


def test_the_folder_in_hydras_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data=synthetic", "data.size=60", "data.shape=[1,8,8]", "model=fcn", "model.hidden=[4]", "epochs=1"]
    assert train([*words, "loggers=none", "hydra.run.dir=here"]) == 0
    assert (Path("here") / "result.json").is_file()


@pytest.mark.parametrize("word", ["-x", "--nothing", "--epochs=3", "-epochs"])
def test_unknown_flags_are_one_line(word, capsys):
    assert error_of(capsys, word).startswith(f"error: {word}: no such flag; settings are written key=value")
