"""Free memory: the least that the machine, its groups and its limits leave, read from files as Linux writes them."""

import pytest

from deeptrain.runtime.memory import format_bytes, free_memory, too_large

GIB = 2**30


def machine(root, available=8, swap=2, groups="", **files):
    (root / "proc/self").mkdir(parents=True)
    lines = f"MemTotal: 99 kB\nMemAvailable: {available * 2**20} kB\nSwapFree: {swap * 2**20} kB\n"
    (root / "proc/meminfo").write_text(lines)
    (root / "proc/self/cgroup").write_text(groups)
    for name, value in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(value))
    return root


def test_swap_counts_only_where_it_is_asked_for(tmp_path):
    assert free_memory(machine(tmp_path)) == 8 * GIB
    assert free_memory(tmp_path, swap=True) == 10 * GIB


def test_a_group_above_its_own_limits_too_and_the_cache_of_files_is_free(tmp_path):
    files = {"job/step/memory.max": "max", "job/step/memory.current": GIB}
    files |= {"job/memory.max": 4 * GIB, "job/memory.current": 3 * GIB}
    files |= {"job/memory.stat": f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\n"}
    assert free_memory(machine(tmp_path, groups="0::/job/step\n", **files)) == 2.5 * GIB


def test_the_first_version_of_groups_and_a_container_that_does_not_see_its_own(tmp_path):
    files = {"memory/memory.limit_in_bytes": 5 * GIB, "memory/memory.usage_in_bytes": 2 * GIB}
    root = machine(tmp_path, groups="4:memory:/docker/abc\n3:cpuset:/\n", **files)
    assert free_memory(root, swap=True) == 3 * GIB


def test_more_than_the_limit_is_no_less_than_nothing(tmp_path):
    files = {"memory.max": GIB, "memory.current": 2 * GIB}
    assert free_memory(machine(tmp_path, groups="0::/\n", **files)) == 0


def test_this_machine_has_some():
    assert free_memory() > 2**20


@pytest.mark.parametrize(("size", "text"), [(5, "5 bytes"), (1536, "1.5 KiB"), (1020 * 2**20, "1020 MiB")])
def test_bytes_are_written_with_three_digits(size, text):
    assert format_bytes(size) == text


def test_what_fits_is_not_mentioned():
    assert too_large(2 * GIB, GIB) == "needs 2 GiB of memory, 1 GiB are free" and not too_large(GIB, GIB)
