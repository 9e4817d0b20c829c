"""What is installed: the distribution's name on the package index, and its version."""

from __future__ import annotations

DISTRIBUTION = "parallelism-advisor"  # `advisor` on the index is another project


def version() -> str:
    """The advisor's own version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout
        return "0 (from source)"
