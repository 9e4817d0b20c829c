"""How familiar a question is to what was fitted, and how wide its intervals are for it.

Two axes: the GPU (the engine's own rows on it, its kernels alone, another GPU's kernels, nothing) and the model's family (dense,
MoE, MLA, hybrid: among the fitted rows, or unseen). Number formats and load come in by the figure and by the rows of the family.
"""

from __future__ import annotations

from advisor.specs.calibration import Calibration, Spread
from advisor.specs.engine import Engine
from advisor.specs.model import ModelSpec

CLOSENESS = ("fitted", "device", "family", "default")
LENT = "lent"  # the engine's own rows on this device, but another device's kernels
UNSEEN = "unseen"  # of spreads: families that the engine's fit was made without
UNKNOWN = Spread(shared=0.35, independent=0.15, points=0)  # no residuals at all: a factor of 1.9 either way
# Kinds of kernel that no table holds (stream) or few (the others): they say nothing of how well a GPU is known.
SELDOM_MEASURED = ("stream", "state_scan", "state_update", "index_scores")


def closeness(calibration: Calibration) -> str:
    """How near the calibration's kernels are to the device asked about: "device", "family" or "default" (the furthest of them)."""
    measured = (reach for key, reach in calibration.kernels if key.kind not in SELDOM_MEASURED)
    found = {reach.provenance.closeness for reach in measured}
    return next((name for name in ("default", "family") if name in found), "device")


def spread_for(engine: Engine, calibration: Calibration, figure: str, model: ModelSpec) -> Spread:
    """The residual spread of a figure: the machine's own where it has one, else the engine's for how familiar the question is.

    "fitted": the engine's own rows on this device ("lent": with another device's kernels); "device": kernels measured on it, the
    engine only on others; "family" and "default": another device's kernels. Of each, the spread of the model's family, or that of
    families left out.
    """
    own = dict(calibration.spreads)
    if figure in own:
        return own[figure]
    kernels = closeness(calibration)
    fitted = calibration.device in engine.fitted_on
    near = ("fitted" if kernels == "device" else LENT) if fitted else kernels
    farther = (LENT, *CLOSENESS[CLOSENESS.index("family") :]) if near == LENT else CLOSENESS[CLOSENESS.index(near) :]
    family = model.family if is_familiar(engine, model) else UNSEEN
    shipped = dict(engine.spreads)
    for name in farther:
        for key in (f"{figure}/{name}/{family}", f"{figure}/{name}"):
            if key in shipped:
                return shipped[key]
    return UNKNOWN


def is_familiar(engine: Engine, model: ModelSpec) -> bool:
    """Whether models of this family are among the engine's fitted rows; an engine that does not say has seen all."""
    return not engine.fitted_families or model.family in engine.fitted_families


def unfamiliar(engine: Engine, model: ModelSpec) -> str:
    """One sentence where the engine's fit has seen no model of this family; "" where it has."""
    if is_familiar(engine, model):
        return ""
    seen = ", ".join(engine.fitted_families)
    fit = f"the fit of {engine.name} {engine.version} has seen {seen} models, no {model.family} one"
    return f"{fit}: the intervals are those of a family left out of the fit"
