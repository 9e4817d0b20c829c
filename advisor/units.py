"""Text <-> SI. Every quantity inside is an SI float or a count; it is converted here on the way in and on the way out.

`GB` is 10^9 bytes and `GiB` is 2^30 bytes. `k`, `M`, `G`, `T`, `P` are powers of 1000; `Ki`, `Mi`, `Gi`, `Ti` of 1024.
"""

from __future__ import annotations

import math
import re

_PREFIX = {"": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
# base unit -> (factor to SI, canonical name)
_BASE = {
    "B": (1.0, "B"),
    "b": (0.125, "B"),
    "B/s": (1.0, "B/s"),
    "b/s": (0.125, "B/s"),
    "s": (1.0, "s"),
    "FLOP": (1.0, "FLOP"),
    "FLOP/s": (1.0, "FLOP/s"),
    "FLOPS": (1.0, "FLOP/s"),
    "W": (1.0, "W"),
    "Hz": (1.0, "Hz"),
    "USD/h": (1.0, "USD/h"),
}
_TEXT = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ/]*)\s*\Z")


def parse(text: str, unit: str) -> float:
    """The SI value of `text`, e.g. `parse("3.35 TB/s", "B/s") == 3.35e12`.

    `unit` is the canonical unit expected: `B`, `B/s`, `s`, `FLOP`, `FLOP/s`, `W`, `Hz` or `USD/h`.
    Raises ValueError when the text is not a finite number or its unit is missing or another one.
    """
    match = _TEXT.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a number with a unit")
    number, suffix = float(match[1].replace("_", "")), match[2]
    for base, (factor, canonical) in _BASE.items():
        if canonical != unit or not suffix.endswith(base):
            continue
        prefix = suffix[: len(suffix) - len(base)]
        scale = _BINARY.get(prefix, _PREFIX.get(prefix))
        if scale is not None:
            value = number * factor * scale
            if not math.isfinite(value):
                raise ValueError(f"{text!r} is not finite")
            return value
    raise ValueError(f"{text!r} has no unit of {unit}")


def show(value: float, unit: str, *, digits: int = 3) -> str:
    """`value` (SI) with the prefix that leaves 1 to 3 digits before the point, e.g. `show(3.35e12, "B/s") == "3.35 TB/s"`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    if unit == "USD/h":
        return f"{_digits(value, digits)} {unit}"
    prefixes = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]
    if unit == "s":
        prefixes = [(1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")]
    for scale, prefix in prefixes:
        if float(_digits(abs(value) / scale, digits)) >= 1:
            return f"{_digits(value / scale, digits)} {prefix}{unit}"
    scale, prefix = prefixes[-1]
    return f"{_digits(value / scale, digits)} {prefix}{unit}"


def show_bytes(value: float, *, digits: int = 3) -> str:
    """`value` bytes in binary units, as engines print memory: `show_bytes(80 * 2**30) == "80 GiB"`."""
    for scale, prefix in ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if abs(value) >= scale:
            return f"{_digits(value / scale, digits)} {prefix}"
    return f"{_digits(value, digits)} B"


def show_count(value: float, *, digits: int = 3) -> str:
    """A count with thousands separators, rounded to `digits` significant digits when it has more: `1,230,000`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return f"{rounded:,.0f}" if places <= 0 or float(rounded).is_integer() else f"{rounded:,.{places}f}".rstrip("0").rstrip(".")


def _digits(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return f"{rounded:.0f}" if places <= 0 else f"{rounded:.{places}f}".rstrip("0").rstrip(".")
