"""How much memory this process may still take: of the machine, of its container, and by its own limits."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def free_memory(system: Path = Path("/"), *, swap: bool = False) -> int:
    """Return the free bytes of host memory. swap: with the room on disk, so that more than this never fits."""
    free = [_of_machine(system, swap), *_of_groups(system), *_of_limits(system)]
    return max(0, min(free))


def too_large(size: int, free: int) -> str:
    """Say how much too large something is; "" if it fits."""
    return f"needs {format_bytes(size)} of memory, {format_bytes(free)} are free" if size > free else ""


def format_bytes(size: int) -> str:
    """Write a number of bytes with three digits, such as 1.46 GiB."""
    unit, name = next(((unit, name) for unit, name in UNITS if size >= unit), (1, "bytes"))
    return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size / unit:.0f} {name}"


def _of_machine(system: Path, swap: bool) -> int:
    try:
        text = (system / "proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**63
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in text.splitlines())}
    return 1024 * (kilobytes["MemAvailable"] + (kilobytes.get("SwapFree", 0) if swap else 0))


def _of_groups(system: Path) -> Iterator[int]:
    """Yield what each control group leaves that this process is in, of either version. Their caches count as free."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    names = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for _, kinds, path in (line.split(":", 2) for line in lines):
        if kinds not in ("", "memory"):
            continue
        top = system / "sys/fs/cgroup" / kinds
        inner = (top / path.lstrip("/"), *(top / path.lstrip("/")).parents)
        for group in (each for each in inner if each.is_relative_to(top)):
            for limit, used in names:
                with suppress(OSError, ValueError):  # "max": no limit
                    yield int((group / limit).read_text()) - int((group / used).read_text()) + _cache(group)


def _cache(group: Path) -> int:
    """Return the bytes of files that a group keeps in memory, which it gives back."""
    with suppress(OSError, ValueError):
        words = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(words.get("inactive_file", 0)) + int(words.get("active_file", 0))
    return 0


def _of_limits(system: Path) -> Iterator[int]:
    """Yield what `ulimit -v` leaves, if it is set."""
    if resource is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError):
            yield limit - int((system / "proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
