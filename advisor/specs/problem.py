"""The four nouns of a question as one value."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.specs.cluster import Cluster
from advisor.specs.engine import Engine
from advisor.specs.model import ModelSpec
from advisor.specs.speculation import Speculation
from advisor.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Which model, on which machine, for which workload, on which engine, and how it drafts tokens (None: it does not)."""

    model: ModelSpec
    cluster: Cluster
    workload: Workload
    engine: Engine
    speculation: Speculation | None = None
