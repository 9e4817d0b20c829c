"""The results file of a validation: every run as it ends, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from advisor.errors import AdvisorError, ProfileError
from advisor.files import locked, read_bounded, shown, writable, write_whole
from advisor.specs import wire
from advisor.specs.experiment import Job, Measurement, Run, Runs
from advisor.specs.problem import Problem

VERSION = 1
EMPTY = Runs(version=VERSION, runs=())
LONGEST_S = 1e6  # of one step: the longest --time-limit
_MOST_BYTES = 64_000_000


@dataclass(slots=True)
class Results:
    """The runs so far and the file they are kept in. `unwritten` is why they could not be kept, empty when they were.

    `fresh`: what the file had before is not taken for done; it stays in the file until the same job is measured again.
    """

    path: Path
    runs: Runs
    fresh: bool = False
    unwritten: str = ""

    @classmethod
    def open(cls, path: Path, *, fresh: bool) -> Results:
        """The file's runs, or none. Raises ProfileError where the file is not a results file of this version."""
        writable(path)
        return cls(path, EMPTY if fresh else _read(path), fresh)

    def done(self, job: Job) -> Measurement | None:
        """The whole measurement of the same job, where there is one."""
        for run in self.runs.runs:
            if run.job.id == job.id and run.measurement.status == "ok":
                return run.measurement
        return None

    def keep(self, job: Job, measurement: Measurement) -> None:
        """Add a run, in place of an earlier try, to what the file has by now. A disk that is full does not lose the run here."""
        self.runs = _with(self.runs, Run(job=job, measurement=measurement))
        try:
            with locked(self.path):  # another validation may keep its runs in the same file
                write_whole(self.path, wire.to_json(_with(self._there(), *self.runs.runs)))
            self.unwritten = ""
        except AdvisorError as error:
            self.unwritten = str(error).rstrip(".")

    def _there(self) -> Runs:
        """The file's runs now; a damaged file that is to be begun anew has none."""
        try:
            return _read(self.path)
        except ProfileError:
            if self.fresh:
                return EMPTY
            raise


def _read(path: Path) -> Runs:
    if not path.exists():
        return EMPTY
    text = read_bounded(path, most_bytes=_MOST_BYTES, what="the results file of a validation, or another --results")
    try:
        runs = wire.from_json(text, Runs, origin=shown(path))
        _check_words(runs, origin=shown(path))
        for run in runs.runs:
            check_figures(run.measurement, origin=shown(path))
    except ProfileError as error:
        raise ProfileError(f"{error}; --fresh starts it anew.") from None
    if runs.version != VERSION:
        raise ProfileError(f"{shown(path)} is of version {runs.version}, this program reads {VERSION}; --fresh starts it anew.")
    return runs


def _check_words(runs: Runs, *, origin: str) -> None:
    """Raises ProfileError for words that are no line of text: they would reach the terminal as commands."""
    for run in runs.runs:
        m = run.measurement
        words = (m.reason, m.device_name, m.driver, m.software, m.date, *m.notes, *(note for t in m.timings for note in t.notes))
        if not all(word.isprintable() for word in words):
            raise ProfileError(f"{origin} has control characters in its words")


def check_figures(measurement: Measurement, *, origin: str) -> None:
    """Raises ProfileError where a file holds figures that no clock can give: not positive, not finite, or no count."""
    for timing in measurement.timings:
        figures = (timing.median_s, timing.low_s, timing.high_s)
        if not all(math.isfinite(figure) and 0 < figure <= LONGEST_S for figure in figures):
            raise ProfileError(f"{origin} has an impossible time for a {timing.cell.phase} step of {timing.cell.batch} sequences")
        others = (timing.achieved_flop_per_s, timing.achieved_bytes_per_s, timing.naive_s or 0.0, timing.bubble or 0.0)
        if not all(math.isfinite(figure) and figure >= 0 for figure in others) or min(timing.cell.batch, timing.repeats) < 1:
            raise ProfileError(f"{origin} has an impossible figure for a {timing.cell.phase} step of {timing.cell.batch} sequences")
    if not (math.isfinite(measurement.weights_bytes) and measurement.weights_bytes >= 0 and measurement.kv_tokens >= 0):
        raise ProfileError(f"{origin} has impossible bytes of weights or tokens of cache")


def _with(runs: Runs, *added: Run) -> Runs:
    """The runs with others added, each in place of an earlier one of the same job."""
    ids = {run.job.id for run in added}
    return replace(runs, runs=(*(run for run in runs.runs if run.job.id not in ids), *added))


def default_path(problem: Problem, *, device: str) -> Path:
    """Where the results of one question are kept: the user's state folder, as XDG places it."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base and os.path.isabs(base) else Path(os.path.expanduser("~")) / ".local" / "state"
    asked = (problem.model.name, wire.to_json(problem.workload), problem.cluster.device.name, problem.cluster.gpus, device)
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
    word = "".join(c if c.isalnum() or c in "-." else "-" for c in problem.model.name)
    return home / "advisor" / "validate" / f"{word}-{digest}.json"
