"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A law that holds slowly on a busy machine holds: time is measured by benchmarks, not by tests.
settings.register_profile("advisor", deadline=None)
settings.load_profile("advisor")
