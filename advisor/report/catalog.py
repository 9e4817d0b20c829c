"""Pages of the catalogue: GPUs and models, as lists and as sheets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from advisor.catalog.models import ModelSummary
from advisor.report.screen import PLAIN, Screen
from advisor.specs import wire
from advisor.specs.calibration import Calibration, Provenance
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS
from advisor.specs.model import DenseFfn, GroupedAttention, LatentAttention, Layer, ModelSpec, MoeFfn, RecurrentMixer, count_equal
from advisor.units import show, show_bytes, show_count

ALIAS = 8  # columns for the shortest other name; longer ones work too


def data_json(value: object) -> str:
    """A spec, or a list of them, as JSON."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return json.dumps([wire.to_data(item) for item in value], indent=2)
    return wire.to_json(value)


def gpus_page(devices: Sequence[Device], *, screen: Screen) -> str:
    """All GPUs, one a row."""
    head = ("GPU", "memory", "bandwidth", "bf16 TFLOP/s", "fp8 TFLOP/s", "link", "W", "USD/h")
    rows = [
        (
            d.name,
            show_bytes(d.memory_bytes),
            show(d.memory_bytes_per_s, "B/s"),
            _tera(d, "bf16"),
            _tera(d, "fp8"),
            f"{d.link_kind} {show(d.link_bytes_per_s, 'B/s')}" if d.link_kind else f"pcie {show(d.pcie_bytes_per_s, 'B/s')}",
            f"{d.power_w:,.0f}",
            "-" if d.price_usd_per_hour is None else show_count(d.price_usd_per_hour),
        )
        for d in devices
    ]
    lines = screen.table(head, rows, right=(1, 2, 3, 4, 6, 7))
    return "\n".join([*lines, "", f"{len(rows)} GPUs. Peaks are dense; links are one direction. `advisor gpus NAME` shows one."])


def _tera(device: Device, compute: str) -> str:
    return show_count(device.peak(compute) / 1e12) if device.peak(compute) else "-"


def models_page(models: Sequence[ModelSummary], *, screen: Screen) -> str:
    """All models, one a row; each name's shortest alias beside it."""
    head = ("model", "alias", "params", "active", "context", "weights", "attention")
    rows = [
        (
            m.name,
            min((a for a in m.aliases if "/" not in a and len(a) <= ALIAS), key=lambda a: (len(a), a), default=""),
            f"{show_count(m.params / 1e9)} B",
            f"{show_count(m.active_params / 1e9)} B" if m.active_params < 0.9 * m.params else "",
            f"{m.max_context_tokens:,}",
            m.weights,
            m.attention,
        )
        for m in sorted(models, key=lambda m: m.name)
    ]
    lines = screen.table(head, rows, right=(2, 3, 4), gap=1)
    return "\n".join(
        [*lines, "", f"{len(rows)} models; any Hugging Face id or config.json works too. `advisor models NAME` shows one."]
    )


def gpu_page(device: Device, calibration: Calibration, *, screen: Screen = PLAIN) -> str:
    """One GPU: its sheet, and where the coefficients for it come from."""
    price = "unknown" if device.price_usd_per_hour is None else f"{show(device.price_usd_per_hour, 'USD/h')} ({device.price_date})"
    link = f"{device.link_kind}, {show(device.link_bytes_per_s, 'B/s')} one direction" if device.link_kind else "none"
    rows = [
        ("architecture", f"{device.vendor} {device.architecture}, {device.compute_capability}"),
        ("memory", f"{show_bytes(device.memory_bytes)} at {show(device.memory_bytes_per_s, 'B/s')}"),
        *((f"peak {name}", show(value, "FLOP/s")) for name, value in device.peak_flop_per_s),
        ("units", f"{device.sms} SMs, {show_bytes(device.l2_bytes)} L2"),
        ("link", link),
        (
            "PCIe",
            f"{show(device.pcie_bytes_per_s, 'B/s')} one direction, peer-to-peer {'works' if device.p2p else 'does not work'}",
        ),
        ("power", show(device.power_w, "W")),
        ("price", price),
    ]
    lines = [screen.bold(device.name), *("  " + line for line in screen.table(("", ""), rows)[1:]), ""]
    lines.append(screen.bold(f"What it reaches: calibration {calibration.name} of {calibration.date}"))
    head = ("kernel", "memory", "compute", "launch", "closeness", "points", "median", "p90")
    kernels = [
        (str(key), f"{r.memory:.2f}", f"{r.compute:.2f}", show(r.launch_s, "s"), *_provenance(r.provenance))
        for key, r in calibration.kernels
    ]
    lines += ["  " + line for line in screen.table(head, kernels, right=(1, 2, 3, 5, 6, 7))] if kernels else []
    columns = ("collective", "latency", "bandwidth", "closeness", "points", "median", "p90")
    wires = [(str(key), show(w.alpha_s, "s"), f"{w.bandwidth:.2f}", *_provenance(w.provenance)) for key, w in calibration.wires]
    lines += ["", *("  " + line for line in screen.table(columns, wires, right=(1, 2, 4, 5, 6)))] if wires else []
    sources = sorted({p.source for p in _provenances(calibration)})
    lines += ["", "Sources", *(screen.wrap(source, first="  ", indent="    ") for source in sources)]
    lines += [screen.wrap(note, first="  ", indent="    ") for note in calibration.notes]
    return "\n".join(lines)


def _provenance(p: Provenance) -> tuple[str, str, str, str]:
    median, p90 = ("-" if x is None else f"{x * 100:.3g}%" for x in (p.median, p.p90))
    return p.closeness, f"{p.points:,}", median, p90


def _provenances(calibration: Calibration) -> Iterable[Provenance]:
    yield from (reach.provenance for _, reach in calibration.kernels)
    yield from (wire_.provenance for _, wire_ in calibration.wires)


def model_page(model: ModelSpec, *, screen: Screen = PLAIN) -> str:
    """One model: what it is made of and what it weighs."""
    formats, kv = model.formats, FORMATS[model.kv_format]
    token_bytes = sum(m.cache_values_per_token() for m in model.attention_layers) * kv.bytes_per_value
    parts = {part: getattr(formats, part) for part in ("attention", "ffn", "experts", "embedding", "head")}
    if not model.is_moe:
        parts.pop("experts")
    rows = [
        ("source", model.source),
        ("parameters", f"{show_count(model.params / 1e9)} B, of which {show_count(model.active_params / 1e9)} B multiply a token"),
        ("weights", ", ".join(f"{part} {name}" for part, name in parts.items())),
        (
            "hidden size",
            f"{model.hidden_size:,}, vocabulary {model.vocab_size:,}{', tied embeddings' if model.tied_embeddings else ''}",
        ),
        ("context", f"{model.max_context_tokens:,} tokens"),
        ("cache", f"{show_bytes(token_bytes)} a token over all layers, windows not counted ({model.kv_format})"),
    ]
    title = model.name + (f" ({model.repo})" if model.repo and model.repo != model.name else "")
    lines = [screen.bold(title)]
    widest = max(len(name) for name, _ in rows)
    lines += [screen.wrap(text, first=f"  {name.ljust(widest)}  ", indent=" " * (widest + 4)) for name, text in rows]
    lines.append(screen.bold(f"{len(model.layers)} layers"))
    lines += [screen.wrap(_layer(layer), first=f"  {count:>4} x ", indent=" " * 9) for layer, count in count_equal(model.layers)]
    lines += [screen.wrap(caveat, first="  ", indent="    ") for caveat in model.caveats]
    return "\n".join(lines)


def _layer(layer: Layer) -> str:
    return " + ".join(text for text in (_mixer(layer), _ffn(layer)) if text)


def _mixer(layer: Layer) -> str:
    mixer = layer.mixer
    if isinstance(mixer, GroupedAttention):
        window = f", {'chunks' if mixer.chunked else 'window'} of {mixer.window_tokens:,}" if mixer.window_tokens else ""
        return f"attention {mixer.heads} heads, {mixer.kv_heads} key-value, {mixer.head_dim} wide{window}"
    if isinstance(mixer, LatentAttention):
        return f"latent attention {mixer.heads} heads, latent {mixer.kv_rank} + {mixer.rope_dim}"
    if isinstance(mixer, RecurrentMixer):
        return f"{mixer.kind} {mixer.heads} heads, {show_count(mixer.state_values)} state values"
    return ""


def _ffn(layer: Layer) -> str:
    ffn = layer.ffn
    if isinstance(ffn, MoeFfn):
        shared = f", shared {ffn.shared_width:,}" if ffn.shared_width else ""
        return f"{ffn.top_k} of {ffn.experts} experts of {ffn.expert_width:,}{shared}"
    if isinstance(ffn, DenseFfn):
        return f"ffn {ffn.width:,}{'' if ffn.gated else ', no gate'}"
    return ""
