"""The one way a file is read or written: bounded reads, whole writes, and a lock for what is read, changed and written.

Writing: the text goes into a new file of the same folder (a name nobody can foresee, created by this process or not at all), is
forced to disk and takes the old file's place in one step, so that a reader meets the old text or the new one. A symbolic link
stays a link: the file it points at is replaced. What is not a regular file (a device, a pipe, a folder) is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.errors import AdvisorError, MachineError, QuestionError, one_line

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM})
_WAIT_S = 60.0  # for a lock: writing takes milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to write. Its mode is what the umask leaves of 0666, of 0777 where it is `executable`; a file that is there keeps its
    own mode.
    """

    path: Path
    data: bytes
    executable: bool = False


def shown(path: Path | str) -> str:
    """A path as text that can be printed."""
    return one_line(os.fspath(path), most=300)


def read_bounded(path: Path, *, most_bytes: int, what: str) -> bytes:
    """The content of a file of at most so many bytes. Raises QuestionError; `what` says what the file should be."""
    try:
        with path.open("rb") as file:  # what calls itself empty may never end (/dev/zero): so many bytes and no more
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise QuestionError(f"{shown(path)} cannot be read: {error.strerror or error}; give {what}.") from None
    except ValueError as error:  # a NUL in the path
        raise QuestionError(f"{shown(path)} cannot be read: {error}; give {what}.") from None
    if len(data) > most_bytes:
        raise QuestionError(f"{shown(path)} is larger than {most_bytes / 1e6:,.0f} MB; give {what}.")
    return data


def write_whole(path: Path, text: str | bytes) -> None:
    """Write one file whole or not at all. Raises QuestionError for a place that cannot be, MachineError where the disk refuses."""
    write_all([NewFile(path=path, data=text.encode() if isinstance(text, str) else text)])


def write_all(files: Sequence[NewFile]) -> None:
    """Write these files: all are on disk beside their places before the first takes its place. Raises as `write_whole`."""
    ready: list[tuple[Path, Path]] = []
    at = files[0].path if files else Path()
    try:
        for file in files:
            at = file.path
            target = writable(at)
            target.parent.mkdir(parents=True, exist_ok=True)
            ready.append((_beside(target, file), target))
        while ready:
            part, target = ready[0]
            os.replace(part, target)
            del ready[0]
            _sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise refusal(at, error) from error
    finally:
        for part, _ in ready:
            with contextlib.suppress(OSError):
                part.unlink()


def writable(path: Path) -> Path:
    """The file that a path leads to, links followed. Raises QuestionError where it is there and no regular file."""
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, ValueError) as error:
        raise refusal(path, error) from None
    if stat.S_ISDIR(mode):
        raise QuestionError(f"{shown(path)} is a folder; name a file in it.")
    if not stat.S_ISREG(mode):
        raise QuestionError(f"{shown(path)} is not a regular file (a device or a pipe) and would be replaced; name another.")
    return target


def refusal(path: Path, error: OSError | ValueError) -> AdvisorError:
    """Why a file cannot be written: the machine's fault (no room: exit 3), or the question's (no such place: exit 2)."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return MachineError(f"{shown(path)} cannot be written: {reason}; free some disk, or name another place.")
    return QuestionError(f"{shown(path)} cannot be written: {reason}; name another place.")


def _beside(target: Path, file: NewFile) -> Path:
    """The data in a new file of the target's folder, forced to disk."""
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(part, flags, 0o777 if file.executable else 0o666)
    try:
        with os.fdopen(handle, "wb") as out:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(target.stat().st_mode) & 0o777 | (0o111 if file.executable else 0))
            out.write(file.data)
            out.flush()
            os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return part


def _sync_folder(folder: Path) -> None:
    """Force the new name to disk; file systems that cannot sync a folder are left as they are."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is inside for this path: what was read inside is still so when it is written.

    The lock is `.NAME.lock` beside the file, held with flock and removed at the end; the kernel lets go of it when its holder ends.
    """
    target = writable(path)
    lock = target.with_name(f".{target.name[:100]}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock(lock)
    except OSError as error:
        raise refusal(path, error) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def _lock(lock: Path) -> int:
    """The open lock file, held; one that its last holder removed meanwhile is taken anew. Raises OSError after `_WAIT_S`."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    until = time.monotonic() + _WAIT_S
    while True:
        handle = os.open(lock, flags, 0o600)
        try:
            _flock(handle, until)
            if os.path.samestat(os.fstat(handle), os.stat(lock, follow_symlinks=False)):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _flock(handle: int, until: float) -> None:
    import fcntl

    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, f"another process has been writing it for {_WAIT_S:.0f} s") from None
            time.sleep(0.01)
