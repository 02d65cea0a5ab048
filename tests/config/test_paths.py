"""A path is what is typed, whatever a file system allows; what we print can be pasted."""

import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from deeptrain.config import compose
from deeptrain.config.override import quote_path, quote_value, unquote_path
from deeptrain.errors import UsageError
from deeptrain.runtime.paths import as_typed, quote, quote_setting, read_path

ODD = ["a[1]", "[old]", "photos, 2024", "it's", "'quoted'", 'say "x"', "a=b", "$HOME", "a${b}", "C:\\me\\", "tab\there"]
ODD += ["two  spaces ", "line\nbreak", "{x}: #1", "~me", "-x", "ünï 猫", "b\udce9", "null", "a\\${b}", "*?!`|&;<>"]
LETTERS = "ab/[](){}\\\\''\"\"$${}=,:# \n\t~*é猫\udcff%&;|<>!`?"


def random_texts(count: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(LETTERS, k=rng.randint(1, 9))) for _ in range(count)]


def test_any_text_passes_through_both_grammars():
    for text in [*ODD, *random_texts(300)]:
        (override,) = compose._parse([f"cache_dir={quote_value(text)}"], [])
        config = OmegaConf.create({"path": str(getattr(override.value(), "text", override.value()))})
        assert OmegaConf.to_container(config, resolve=True) == {"path": text}
        assert unquote_path(f"cache_dir={quote_value(text)}") == f"cache_dir={text}"


@pytest.mark.parametrize("name", ODD)
def test_a_folder_is_found_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    word = f"data.root={as_typed(name)}"
    run = compose.compose_run([word, f"cache_dir={tmp_path / name}"])
    assert run.values["data.root"] == run.parts["data"]["root"] or "${" in name
    assert Path(run.parts["data"]["root"]).samefile(tmp_path / name)
    assert run.settings.cache_dir == str(tmp_path / name)
    assert run.overrides[0] == word  # so that a resume reads the same


@pytest.mark.parametrize(
    "name", ["photos, 2024/pets", "[old]/pets", "pets (new)/x y", "C:\\me\\pets", "a=b/pets", "it's"]
)
def test_a_missing_folder_is_called_missing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from deeptrain.config.instantiate import instantiate

    run = compose.compose_run(["data=image_folder", f"data.root={name}"])
    with pytest.raises(UsageError, match="does not exist"):
        instantiate("data", run.parts["data"])


def test_hydras_notation_still_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICTURES", "/pictures")
    words = ["data.root=${oc.env:PICTURES}/a", "cache_dir='a, b'"]
    run = compose.compose_run(words)
    assert (run.parts["data"]["root"], run.settings.cache_dir) == ("/pictures/a", "a, b")
    assert compose.compose_run(["cache_dir=null"]).settings.cache_dir is None


def test_commas_separate_the_folders_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1]", "b", "c,d"):
        (tmp_path / name).mkdir()
    jobs, keys = compose.compose_sweep(["data.root=a[1],b", "seed=0,1"])
    assert keys == ["data.root", "seed"]
    assert [unquote_path(job[0]) for job in jobs] == ["data.root=a[1]"] * 2 + ["data.root=b"] * 2
    with pytest.raises(UsageError, match="several values make a sweep; add -m"):
        compose.compose_run(["data.root=a[1],b"])
    assert compose.compose_run(["data.root=c,d"]).parts["data"]["root"] == "c,d"
    assert quote_path("data.root=choice(a,b)", sweep=True) == "data.root=choice(a,b)"


@pytest.mark.parametrize("text", ["x" * 300, "a\0b", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("key", ["data.root", "cache_dir"])
def test_a_name_that_no_disk_takes_is_said_in_a_line(text, key, tmp_path, monkeypatch):
    from deeptrain import build
    from deeptrain.config.instantiate import instantiate
    from deeptrain.data.cache import cache_root

    with pytest.raises(ValueError, match=r"write (another|the whole)"):
        read_path(text)
    if "\0" in text:
        return
    run = compose.compose_run(["data=image_folder", f"{key}={text}"])
    with pytest.raises(UsageError) as raised:
        build.load_data(run, lambda cache: cache_root(cache)) if key == "cache_dir" else instantiate(
            "data", run.parts["data"]
        )
    assert raised.value.lines[0].startswith(f"{key}={text}: ")


def test_without_a_home_directory_the_cache_is_asked_for(monkeypatch):
    from deeptrain.data import cache

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(ValueError, match=r"^cache_dir=.*no such home directory.*cache_dir=FOLDER"):
        cache.cache_root(None)


def test_what_is_printed_can_be_pasted_into_bash(tmp_path):
    words = [quote(text) for text in [*ODD, *random_texts(100)] if text]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout).split("\0")[:-1] == [*ODD, *random_texts(100)]
    assert all("\n" not in word and word.isprintable() for word in words)
    assert shlex.split(quote_setting("resume", "~x")) == ["resume=./~x"] and as_typed("-x") == "./-x"


def test_an_ascii_terminal_gets_bytes_to_paste(monkeypatch):
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    assert quote("猫") == r"$'\xe7\x8c\xab'"
