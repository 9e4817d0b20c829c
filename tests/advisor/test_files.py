"""The one writer: whole or not at all, never through somebody else's link, never in place of a device."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from advisor import files
from advisor.errors import MachineError, QuestionError
from advisor.files import NewFile, locked, read_bounded, shown, write_all, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_all([NewFile(path=tmp_path / "a", data=b"x"), NewFile(path=tmp_path / "run.sh", data=b"x", executable=True)])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "run.sh").stat().st_mode) == 0o750
    assert names(tmp_path) == ["a", "run.sh"]


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("old")
    path.chmod(0o600)
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path / "there") == ["target"]


@pytest.mark.parametrize("place", ["/dev/null", "/dev/full"])
def test_a_device_is_refused_and_stays(place: str) -> None:
    before = os.stat(place)
    with pytest.raises(QuestionError, match="not a regular file"):
        write_whole(Path(place), "x")
    assert os.stat(place).st_ino == before.st_ino


def test_a_pipe_and_a_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(QuestionError, match="not a regular file"):
        write_whole(tmp_path / "pipe", "x")
    for place in (tmp_path, Path("/"), Path(), Path(".")):
        with pytest.raises(QuestionError, match="is a folder"):
            write_whole(place, "x")


def test_links_under_names_that_can_be_foreseen_are_not_followed(tmp_path: Path) -> None:
    """Somebody who may write into the folder lays links where temporary files used to be."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".out.csv.new", f".out.csv.{os.getpid()}", ".out.csv.part", ".out.csv.lock"):
        (tmp_path / name).symlink_to(victim)
    write_whole(tmp_path / "out.csv", "x")
    with pytest.raises(QuestionError), locked(tmp_path / "out.csv"):  # O_NOFOLLOW: a link is no lock
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_nothing_is_left_over_whatever_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(MachineError, match="No space left on device; free some disk"):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert names(tmp_path) == ["a"]


def test_of_several_files_none_is_replaced_when_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(QuestionError):
        write_all([NewFile(path=tmp_path / "a", data=b"new"), NewFile(path=tmp_path / "a" / "below", data=b"new")])
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(("error", "kind"), [(28, MachineError), (122, MachineError), (13, QuestionError), (30, QuestionError)])
def test_no_room_is_the_machines_fault_and_a_bad_place_the_questions(
    error: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(kind):
        write_whole(tmp_path / "a", "x")


def test_reading_stops_at_its_bound(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="larger than 1 MB; give a thing"):
        read_bounded(Path("/dev/zero"), most_bytes=1_000_000, what="a thing")
    with pytest.raises(QuestionError, match="Is a directory"):
        read_bounded(tmp_path, most_bytes=10, what="a thing")
    (tmp_path / "a").write_bytes(b"1234567890")
    assert read_bounded(tmp_path / "a", most_bytes=10, what="a thing") == b"1234567890"


def test_a_path_is_shown_without_what_a_terminal_would_obey() -> None:
    assert shown(Path("a\x1b[31m\nb")) == "a\\x1b[31m b"
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert len(shown("x" * 5000)) == 300


def add_lines(path: Path, count: int) -> None:
    for _ in range(count):
        with locked(path):
            before = path.read_text() if path.exists() else ""
            write_whole(path, before + "x\n")


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_lines, args=(path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text().count("x") == 100
    assert names(tmp_path) == ["lines"]  # no lock is left


def test_a_lock_that_is_never_let_go_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_WAIT_S", 0.05)
    with locked(tmp_path / "a"), pytest.raises(QuestionError, match="another process has been writing it"), locked(tmp_path / "a"):
        pass
