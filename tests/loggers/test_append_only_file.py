"""A growing file holds whole records only, whatever the disk does."""

from deeptrain.loggers.append_only_file import AppendOnlyFile


def test_a_full_disk_costs_one_warning_and_no_record(tmp_path, full_disk):
    warnings, path = [], tmp_path / "events"
    file = AppendOnlyFile(path, warnings.append)
    file.add(b"first|")
    with full_disk():
        file.add(b"second|")
        file.add(b"third|")
    assert path.read_bytes() not in (b"first|", b"first|second|third|")  # something torn lies there
    file.add(b"fourth|")
    assert path.read_bytes() == b"first|second|third|fourth|"
    assert len(warnings) == 1 and "No space left" in warnings[0] and "\n" not in warnings[0]


def test_a_second_outage_warns_again(tmp_path, full_disk):
    warnings = []
    file = AppendOnlyFile(tmp_path / "events", warnings.append)
    for _ in range(2):
        with full_disk():
            file.add(b"a")
            file.add(b"b")
        file.add(b"c")
    assert len(warnings) == 2
    assert file.path.read_bytes() == b"abcabc"


def test_a_file_that_exists_is_continued(tmp_path):
    (tmp_path / "events").write_bytes(b"old|")
    AppendOnlyFile(tmp_path / "events").add(b"new|")
    assert (tmp_path / "events").read_bytes() == b"old|new|"


def test_what_is_kept_for_a_disk_that_stays_full_is_bounded(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr("deeptrain.loggers.append_only_file.MAX_WAITING", 10)
    file = AppendOnlyFile(tmp_path / "events", lambda text: None)
    with full_disk():
        for _ in range(100):
            file.add(b"four")
    file.add(b"")
    assert file.path.read_bytes() == b"four" * 3
