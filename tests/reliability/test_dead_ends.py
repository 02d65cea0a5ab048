"""Every refusal names a way out: each is walked here, and arrives."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.errors import NothingToDo, UsageError
from deeptrain.run import artifacts, folder, lock
from deeptrain.training import checkpoint

pytestmark = pytest.mark.slow

TINY = ["data=synthetic", "data.shape=[3,8,8]", "data.size=40", "model=fcn", "model.hidden=[4]", "loggers=none"]
TINY += ["device=cpu", "threads=1", "workers=0"]
LONGER = ["resume=run", "epochs=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a run of one epoch."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert train([*TINY, "epochs=1", f"dir={path}"]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """Return a copy of that run; its pictures are not drawn anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)
    return Path(shutil.copytree(finished, "run"))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def move_away(path: Path) -> None:
    path.rename(f"moved-{path.name}")


def write_settings(path: Path) -> None:
    path.write_text("".join(f"- {word}\n" for word in [*TINY, "epochs=1"]))


def damage_both_last(run: Path) -> None:
    halve(run / "checkpoints/last.pt")
    halve(run / "checkpoints/last.previous.pt")


# what befalls a run, the command that is refused, what the refusal says, what is done about it, what then works
WALKS: dict[str, tuple[Callable, list[str], str, Callable, list[str]]] = {
    "config": (
        lambda run: halve(run / "config.yaml"),
        LONGER,
        "move it away",
        lambda run: move_away(run / "config.yaml"),
        LONGER,
    ),
    "changes": (
        lambda run: (run / "changed.json").write_text("[1"),
        LONGER,
        "move it away",
        lambda run: move_away(run / "changed.json"),
        LONGER,
    ),
    "overrides gone": (
        lambda run: (run / "overrides.yaml").unlink(),
        LONGER,
        "a line each, as - epochs=3",
        lambda run: write_settings(run / "overrides.yaml"),
        LONGER,
    ),
    "overrides empty": (
        lambda run: (run / "overrides.yaml").write_text(""),
        LONGER,
        "a line each, as - epochs=3",
        lambda run: write_settings(run / "overrides.yaml"),
        LONGER,
    ),
    "last and the one before damaged": (
        damage_both_last,
        LONGER,
        "resume=run/checkpoints/best.pt",
        lambda run: None,
        ["resume=run/checkpoints/best.pt", "epochs=2"],
    ),
    "last gone": (
        lambda run: [path.unlink() for path in (run / "checkpoints").glob("last*")],
        LONGER,
        "name the one that is there, run/checkpoints/best.pt",
        lambda run: None,
        ["resume=run/checkpoints/best.pt", "epochs=2"],
    ),
    "a link": (
        lambda run: (run / "answers").symlink_to("/etc/hostname"),
        LONGER,
        "is a link or no file",
        lambda run: (run / "answers").unlink(),
        LONGER,
    ),
    "trusted": (
        lambda run: (
            write_settings(run / "overrides.yaml")
            or (run / "overrides.yaml").open("a").write("- allow_targets=[torch]\n")
        ),
        LONGER,
        "asks for allow_targets=[torch]",
        lambda run: None,
        [*LONGER, "allow_targets=[torch]"],
    ),
    "nothing left": (lambda run: None, ["resume=run"], "add epochs=2", lambda run: None, LONGER),
    "its folder": (lambda run: None, [*TINY, "dir=run"], "resume=run", lambda run: None, LONGER),
    "other settings": (
        lambda run: None,
        [*LONGER, "seed=1"],
        "add resume_changed=true",
        lambda run: None,
        [*LONGER, "seed=1", "resume_changed=true"],
    ),
    "other images": (
        lambda run: None,
        [*LONGER, "data.size=48", "resume_changed=true"],
        "leave it out",
        lambda run: None,
        LONGER,
    ),
    "a cut-off result": (
        lambda run: halve(run / "result.json"),
        ["rerun=run"],
        "move it away",
        lambda run: move_away(run / "result.json"),
        ["rerun=run"],
    ),
}


@pytest.mark.parametrize("name", WALKS)
def test_what_a_refusal_says_works(run, capsys, name):
    damage, refused, remedy, repair, accepted = WALKS[name]
    damage(run)
    assert train(refused) == 2
    line = capsys.readouterr().err
    assert remedy in line and line.count("\n") == 1, line
    repair(run)
    assert train(accepted) == 0, capsys.readouterr().err


@pytest.mark.parametrize("damage", [Path.unlink, halve], ids=["missing", "damaged"])
def test_an_evaluation_names_the_checkpoint_that_is_left(run, capsys, damage):
    damage(run / "checkpoints/best.pt")
    assert evaluate(["run"]) == 2
    assert "run/checkpoints/last.pt" in capsys.readouterr().err
    assert evaluate(["run/checkpoints/last.pt"]) == 0


@pytest.mark.parametrize("damage", [Path.unlink, halve], ids=["missing", "damaged"])
def test_a_resume_says_that_the_best_weights_are_lost(run, capsys, damage):
    damage(run / "checkpoints/best.pt")
    assert train(LONGER) == 0
    state = "missing" if damage is Path.unlink else "damaged"
    message = " ".join(capsys.readouterr().out.split())
    assert f"best.pt: is {state}; a better validation than the best so far (accuracy/val " in message
    assert "in epoch 1) writes it anew" in message


def test_an_evaluation_goes_on_without_a_damaged_file_that_is_moved_away(run, capsys):
    for name in ("split.json", "evaluation.json"):
        (run / name).write_text("{")
        assert evaluate(["run"]) == 2
        assert f"{name}: is damaged; move it away" in capsys.readouterr().err
        move_away(run / name)
        assert evaluate(["run"]) == 0


@pytest.mark.parametrize("damage", [halve, Path.unlink, lambda path: path.write_text("a,b\n1,2\n")])
def test_a_damaged_table_does_not_stop_a_resume(run, capsys, damage):
    damage(run / "metrics.csv")
    assert train(LONGER) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "run/metrics.csv" in line]
    assert len(warnings) == 1 and "the run goes on" in " ".join(warnings)
    assert (run / "metrics.csv").read_text().splitlines()[-1].startswith("2,")


def test_a_table_that_no_checkpoint_knows_is_refused_until_it_is_moved_away(run, capsys):
    """As it was written by an older version."""
    state = checkpoint.load(run / "checkpoints/last.pt")
    checkpoint.save(run / "checkpoints/last.pt", {name: value for name, value in state.items() if name != "logs"})
    (run / "metrics.csv").write_text("a,b\n1,2\n")
    assert train(LONGER) == 2
    assert "move it away" in capsys.readouterr().err
    move_away(run / "metrics.csv")
    assert train(LONGER) == 0


# --- a run that was killed ---


def test_a_folder_is_in_use_only_while_its_lock_is_held(run, capsys):
    (run / ".lock").write_text("process 1 on here, since ever")  # of a killed run
    assert train([*TINY, "dir=run"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("written", [[".lock"], [".lock", "run.log", "split.json", "config.yaml"]], ids=len)
def test_a_run_that_was_killed_before_it_had_begun_is_started_again(tmp_path, monkeypatch, capsys, written):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)
    Path("run/checkpoints").mkdir(parents=True)
    for name in written:
        Path("run", name).write_text("")
    assert train(["resume=run"]) == 2
    assert "start it again with its own settings, and with dir=run" in capsys.readouterr().err
    assert train([*TINY, "epochs=1", "dir=run"]) == 0


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/last.pt", "split.json"])
def test_a_folder_with_other_files_is_left_alone(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints").mkdir(parents=True)
    Path("run", name).write_text("")
    assert train([*TINY, "epochs=1", "dir=run"]) == 2
    error = capsys.readouterr().err
    assert "holds other files (checkpoints" in error and "name a new folder" in error and "resume" not in error


# --- pictures, result, a job that is queued again ---


@pytest.mark.parametrize("damage", [lambda run: halve(run / "result.json"), lambda run: (run / "card.html").unlink()])
def test_a_finished_run_without_its_result_or_pictures_gets_them(finished, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished, "run"))
    weights = json.loads((run / "result.json").read_text())["weights"]
    damage(run)
    assert train(["resume=run"]) == 0
    assert (run / "card.html").is_file() and json.loads((run / "result.json").read_text())["weights"] == weights
    assert train(["resume=run"]) == 2, "nothing is left to do"


def test_pictures_that_could_not_be_drawn_are_drawn_by_what_the_warning_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "_draw", fail)
        assert train([*TINY, "epochs=1", "dir=run"]) == 0
    assert "resume=run draws them" in capsys.readouterr().out
    assert not Path("run/curves.png").exists()
    assert train(["resume=run"]) == 0 and Path("run/curves.png").is_file()


def in_outputs(run: Path, name: str) -> Path:
    path = Path("outputs/2026-01-01", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(run, path))


def test_a_job_that_is_queued_again_after_its_run_has_finished_is_no_mistake(run, capsys):
    path = in_outputs(run, "10-00-00-aaaa")
    for words in (["resume=auto"], ["resume=auto", "epochs=1", "device=cpu"], ["resume=auto", "resume_changed=true"]):
        assert train(words) == 0
        assert f"{path} has finished" in capsys.readouterr().out
    assert train(["resume=auto", "epochs=3"]) == 2, "that is more than was done"
    assert f"resume={path} epochs=N" in capsys.readouterr().err
    assert train([f"resume={path}", "epochs=3"]) == 0


def test_a_cut_off_result_does_not_stop_resume_auto(run):
    path = in_outputs(run, "10-00-00-aaaa")
    halve(path / "result.json")
    assert folder.find_to_resume("auto")[0] == path
    assert train(["resume=auto"]) == 0
    with pytest.raises(NothingToDo):
        folder.find_to_resume("auto")


def test_without_an_unfinished_run_resume_auto_says_what_there_is(run, tmp_path):
    with pytest.raises(UsageError, match="there is no run in outputs/; start one without resume"):
        folder.find_to_resume("auto")
    path = in_outputs(run, "10-00-00-aaaa")
    lock.lock(path, "")
    try:
        with pytest.raises(UsageError, match=r"10-00-00-aaaa is in use .*; wait for its end, or end it"):
            folder.find_to_resume("auto")
    finally:
        lock.unlock_all()


@pytest.mark.parametrize("name", ["run.pt", "last.pt"])
def test_a_run_folder_may_be_named_like_a_checkpoint(run, name):
    run.rename(name)
    for path in (name, f"{name}/checkpoints/last.pt"):
        assert folder.find(path, "resume") == (Path(name), Path(name, "checkpoints/last.pt"))


def test_a_file_in_place_of_the_checkpoints_is_no_run(run):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").touch()
    with pytest.raises(UsageError, match="is no run to load"):
        folder.find_to_resume("run")


def test_a_file_in_place_of_outputs_is_a_line_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outputs").touch()
    for make in (folder.new_folder, folder.new_sweep_folder):
        with pytest.raises(UsageError, match=r"^outputs/\S+: cannot be made \(Not a directory\); .* dir="):
            make()


def test_a_damaged_checkpoint_is_not_named_in_place_of_another(run, capsys):
    damage_both_last(run)
    halve(run / "checkpoints/best.pt")
    assert train(LONGER) == 2
    assert "last.pt: damaged" in (message := capsys.readouterr().err) and message.rstrip().endswith("start a new run")
    assert evaluate(["run"]) == 2
    assert "best.pt: damaged" in (message := capsys.readouterr().err) and "name another one" not in message


def test_of_damaged_best_weights_no_pictures_are_promised(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished, "run"))
    (run / "card.html").unlink()
    halve(run / "checkpoints/best.pt")
    assert train(["resume=run"]) == 0
    message = capsys.readouterr().out
    assert "best.pt: damaged" in message and "no pictures" in message and "draws them" not in message
