"""What a machine reaches of its data sheet: kernel and collective coefficients, engine corrections, and how wrong they are.

Ideal figures stay in `Device`; nothing here is multiplied into them in data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.specs.keys import KernelKey, WireKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where coefficients come from: `source` text, how many points, and the residuals |predicted/measured - 1|.

    `closeness` says how near the source is to the device asked about: "device" (its own table), "family" (another chip of its
    architecture), "default" (nothing known).
    """

    source: str
    closeness: str
    points: int = 0
    median: float | None = None
    p90: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Coefficients of one kernel kind: t = ((Q / (B* memory))^q + (F / (F* compute))^q)^(1/q) + launch_s.

    `shape` holds named further coefficients that the kind's formula in `roofline/compute.py` documents.
    """

    memory: float
    compute: float
    launch_s: float
    sharpness: float
    provenance: Provenance
    shape: tuple[tuple[str, float], ...] = ()

    def coefficient(self, name: str, default: float) -> float:
        """A further coefficient by name."""
        return dict(self.shape).get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireReach:
    """Coefficients of one collective algorithm on one link class: latency `alpha_s` and the share of the link bandwidth reached."""

    alpha_s: float
    alpha_per_rank_s: float
    bandwidth: float
    up_to_bytes: float
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Residual ln(measured/predicted) of one figure: `shared` and `independent` standard deviations.

    The shared part is common to all plans of one question (same box, same engine); the independent part is each plan's own.
    """

    shared: float
    independent: float
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One machine's coefficients. Keys of `spreads`: "ttft", "tpot", "throughput" .... `scales` are the local corrections to
    "prefill", "decode", "host", "collective" from the user's own runs (1.0 where absent)."""

    name: str
    device: str
    version: int
    date: str
    kernels: tuple[tuple[KernelKey, Reach], ...]
    wires: tuple[tuple[WireKey, WireReach], ...]
    spreads: tuple[tuple[str, Spread], ...] = ()
    scales: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = field(default=())
