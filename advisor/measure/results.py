"""The results file of a validation: every run as it ends, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from advisor.errors import ProfileError, QuestionError
from advisor.specs import wire
from advisor.specs.experiment import Job, Measurement, Run, Runs
from advisor.specs.problem import Problem

VERSION = 1


@dataclass(slots=True)
class Results:
    """The runs so far and the file they are kept in. `unwritten` is why they could not be kept, empty when they were."""

    path: Path
    runs: Runs
    unwritten: str = ""

    @classmethod
    def open(cls, path: Path, *, fresh: bool) -> Results:
        """The file's runs, or none. Raises ProfileError where the file is no results file of this version."""
        empty = cls(path, Runs(version=VERSION, runs=()))
        if fresh:
            return empty
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return empty
        except OSError as error:
            raise QuestionError(f"{path} cannot be read: {error.strerror or error}; name another --results.") from None
        try:
            runs = wire.from_json(text, Runs, origin=str(path))
        except ProfileError as error:
            raise ProfileError(f"{error}; --fresh starts it anew.") from None
        if runs.version != VERSION:
            raise ProfileError(f"{path} is of version {runs.version}, this program reads {VERSION}; --fresh starts it anew.")
        return cls(path, runs)

    def done(self, job: Job) -> Measurement | None:
        """The whole measurement of the same job, where there is one."""
        for run in self.runs.runs:
            if run.job.id == job.id and run.measurement.status == "ok":
                return run.measurement
        return None

    def keep(self, job: Job, measurement: Measurement) -> None:
        """Add a run, in place of an earlier try, and write the file whole. A disk that is full does not lose the run here."""
        others = tuple(run for run in self.runs.runs if run.job.id != job.id)
        self.runs = replace(self.runs, runs=(*others, Run(job=job, measurement=measurement)))
        try:
            write_whole(self.path, wire.to_json(self.runs))
            self.unwritten = ""
        except OSError as error:
            self.unwritten = f"{self.path} could not be written: {error.strerror or error}"


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: a reader meets the old or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def default_path(problem: Problem, *, device: str) -> Path:
    """Where the results of one question are kept: the user's state folder, as XDG places it."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base and os.path.isabs(base) else Path(os.path.expanduser("~")) / ".local" / "state"
    asked = (problem.model.name, wire.to_json(problem.workload), problem.cluster.device.name, problem.cluster.gpus, device)
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
    word = "".join(c if c.isalnum() or c in "-." else "-" for c in problem.model.name)
    return home / "advisor" / "validate" / f"{word}-{digest}.json"
