"""Which number format each part of a checkpoint is stored in: `quantization_config` and modelopt's `hf_quant_config.json`.

A checkpoint quantises the linear layers it names (or all) and leaves out those it lists. `WeightFormats` knows five parts;
representative modules of each are looked up under the names checkpoints use, and the format that most of a part's parameters
have is the part's. Where a part is mixed, a caveat says so. Embeddings stay in 16 bits, and so does the head unless it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from advisor.catalog.config_fields import Fields
from advisor.specs.model import GroupedAttention, LatentAttention, Layer, MoeFfn, WeightFormats

_PROBED_LAYERS = 8
_ELSEWHERE = ("mtp", "model.mtp", "visual", "model.visual", "vision_tower", "model.vision_tower")  # their layers count from 0 too
_FLOATS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "bf16", "float": "bf16"}
# modelopt's names (its `quant_algo`), as TensorRT-LLM and vLLM read them.
_ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8-block",
    "FP8_BLOCK_SCALES": "fp8-block",
    "NVFP4": "nvfp4",
    "W4A16_NVFP4": "nvfp4-wo",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_AWQ": "int4",
    "W4A16": "int4",
    "W4A16_GPTQ": "int4",
    "W8A16": "int8-wo",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": "int8",
    "MXFP4": "mxfp4",
    "W4A16_MXFP4": "mxfp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """What a checkpoint's configs say of its number formats."""

    weights: WeightFormats
    kv: str
    label: str = ""
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheme:
    """Module name -> format, None where it stays in 16 bits; and the KV cache where it is stated."""

    label: str
    format_of: Callable[[str], str | None]
    kv: str = ""
    caveats: tuple[str, ...] = field(default=())


def formats(fields: Fields, text: Fields, quant: Fields | None, *, key: str, layers: Sequence[Layer], hidden: int) -> Formats:
    """The formats of a checkpoint. `fields` is the whole config, `text` its language part, `quant` hf_quant_config.json.

    Raises ProfileError for a quantisation method whose bytes are not known.
    """
    stated = text.text("torch_dtype", "dtype", default="") or fields.text("torch_dtype", "dtype", default="bfloat16")
    base = _FLOATS.get(stated.removeprefix("torch."))
    if base is None:
        raise fields.refuse(f"weights stored as {stated[:40]!r} are not modelled; use --dtype to say what is served.")
    scheme = _scheme(fields, text, quant)
    if scheme is None:
        return Formats(weights=WeightFormats(attention=base, ffn=base, experts=base, embedding=base, head=base), kv=base)
    found, caveats = _vote(scheme, key, layers, hidden, base)
    found["experts"] = _expert_format(fields, text) or found["experts"]
    caveats += _unquantised(fields, scheme.label, found, base, layers, hidden)
    head = scheme.format_of("lm_head") if scheme.label != "mxfp4" else None
    weights = WeightFormats(
        attention=found["attention"], ffn=found["ffn"], experts=found["experts"], embedding=base, head=head or base
    )
    return Formats(weights=weights, kv=scheme.kv or base, label=scheme.label, caveats=(*scheme.caveats, *caveats))


def _unquantised(
    fields: Fields, label: str, found: Mapping[str, str], base: str, layers: Sequence[Layer], hidden: int
) -> list[str]:
    """A caveat where the largest part of a quantised checkpoint stays in 16 bits. Raises ProfileError where all of it does."""
    experts = sum(layer.ffn.experts * layer.ffn.expert_params(hidden) for layer in layers if isinstance(layer.ffn, MoeFfn))
    dense = sum(layer.ffn.params(hidden) for layer in layers if layer.ffn is not None and not isinstance(layer.ffn, MoeFfn))
    if all(found[part] == base for part in ("attention", "ffn", "experts")):
        raise fields.refuse(
            f"its quantisation ({label}) names no module that this program knows, so its bytes are not known; say with --dtype how "
            "it is served."
        )
    largest = "experts" if experts > dense else "ffn"
    if found[largest] != base:
        return []
    return [
        f"the checkpoint is quantised ({label}), but its largest tensors ({largest}) are not among those it names: they are {base}"
    ]


def _expert_format(fields: Fields, text: Fields) -> str:
    """The experts' own format where the config names one beside the method of the rest (DeepSeek-V4), else empty."""
    config = fields.child("quantization_config") or text.child("quantization_config")
    algorithm = config.text("moe_quant_algo").upper() if config is not None else ""
    if algorithm:
        if algorithm not in _ALGORITHMS:
            raise fields.refuse(f"experts quantised as {algorithm[:40]!r} are not modelled.")
        return _ALGORITHMS[algorithm]
    stated = text.text("expert_dtype") or (config.text("expert_dtype") if config is not None else "")
    return "mxfp4" if stated == "fp4" else ""


def _vote(scheme: _Scheme, key: str, layers: Sequence[Layer], hidden: int, base: str) -> tuple[dict[str, str], list[str]]:
    """The format of most parameters of each part, over a spread of layers; caveats for mixed parts."""
    tally: dict[str, dict[str, int]] = {}
    step = max(1, len(layers) // _PROBED_LAYERS)
    kinds: set[tuple[bool, str]] = set()
    for index, layer in enumerate(layers):
        kind = (isinstance(layer.ffn, MoeFfn), type(layer.mixer).__name__)
        if index % step and kind in kinds:
            continue
        kinds.add(kind)
        for part, name, count in _modules(key, index, layer, hidden):
            chosen = scheme.format_of(name) or base
            votes = tally.setdefault(part, {})
            votes[chosen] = votes.get(chosen, 0) + count
    found: dict[str, str] = {}
    caveats: list[str] = []
    for part in ("attention", "ffn", "experts"):
        votes = tally.get(part, {})
        if not votes:
            continue
        best = max(votes, key=lambda name: votes[name])
        share = 1 - votes[best] / max(1, sum(votes.values()))
        found[part] = best
        if share > 0.1:
            caveats.append(
                f"about {share:.0%} of the {part} weights are stored in another format than {best}, as which all are counted"
            )
    found.setdefault("ffn", found.get("experts", base))  # a part the model lacks follows its sibling
    found.setdefault("experts", found["ffn"])
    found.setdefault("attention", base)
    return found, caveats


def _modules(key: str, index: int, layer: Layer, hidden: int) -> Iterable[tuple[str, str, int]]:
    """Part, module name from "layers." on, and parameters, of the modules whose format decides for a layer."""
    prefix = f"layers.{index}."
    mixer, ffn = layer.mixer, layer.ffn
    block = "mixer" if key == "nemotron_h" else "self_attn"
    if isinstance(mixer, GroupedAttention):
        width, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
        for name, count in (("q_proj", width), ("k_proj", kv), ("v_proj", kv), ("o_proj", width)):
            yield "attention", f"{prefix}{block}.{name}", count * hidden
    elif isinstance(mixer, LatentAttention):
        names = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
        down = hidden * (mixer.kv_rank + mixer.rope_dim)
        up = mixer.kv_rank * mixer.heads * (mixer.nope_dim + mixer.v_head_dim)
        query = mixer.q_rank * mixer.heads * mixer.head_dim
        counts = [hidden * mixer.q_rank, query, down, up, mixer.heads * mixer.v_head_dim * hidden]
        if not mixer.q_rank:
            names[1], counts[1] = "q_proj", hidden * mixer.heads * mixer.head_dim
        for name, count in zip(names, counts, strict=True):
            yield "attention", f"{prefix}self_attn.{name}", count
    elif mixer is not None:
        block = "mixer" if key == "nemotron_h" else "self_attn" if key in ("kimi_linear", "minimax") else "linear_attn"
        inward = "in_proj" if key == "nemotron_h" else "in_proj_qkv"
        for name, weight in ((inward, 2), ("out_proj", 1)):
            yield "attention", f"{prefix}{block}.{name}", mixer.weights * weight // 3
    mlp = "mixer" if key == "nemotron_h" else "mlp"
    if isinstance(ffn, MoeFfn):
        where = {
            "nemotron_h": "mixer.experts.0.up_proj",
            "gemma4_text": "experts.0.up_proj",
            "minimax_m2": "block_sparse_moe.experts.0.w1",
            "mixtral": "block_sparse_moe.experts.0.w1",
            "phimoe": "block_sparse_moe.experts.0.w1",
            "kimi_linear": "block_sparse_moe.experts.0.w1",
        }.get(key, "mlp.experts.0.up_proj")
        yield "experts", prefix + where, ffn.experts * ffn.expert_params(hidden)
        if ffn.shared_width:
            name = "shared_expert" if ffn.shared_gate else "shared_experts"
            yield "ffn", f"{prefix}{mlp}.{name}.up_proj", ffn.matrices * hidden * ffn.shared_width
    elif ffn is not None:
        yield "ffn", f"{prefix}{mlp}.up_proj", ffn.params(hidden)
    if layer.parallel_ffn is not None:
        yield "ffn", f"{prefix}mlp.up_proj", layer.parallel_ffn.params(hidden)


def _scheme(fields: Fields, text: Fields, quant: Fields | None) -> _Scheme | None:
    """The one description of the quantisation that the files give; modelopt's own file goes first."""
    if quant is not None:
        inner = quant.child("quantization")
        if inner is None:
            raise quant.refuse("quantization is missing from hf_quant_config.json.")
        return _modelopt(inner)
    config = fields.child("quantization_config") or text.child("quantization_config") or fields.child("compression_config")
    if config is None:
        return None
    method = config.text("quant_method", default="modelopt" if config.has("quant_algo") else "").lower()
    if method in ("modelopt", "modelopt_fp4"):
        return _modelopt(config)
    if method == "compressed-tensors":
        return _compressed_tensors(config)
    kept = _Names(
        [*config.texts("modules_to_not_convert"), *config.texts("ignored_layers"), *config.texts("modules_to_not_quantize")]
    )
    name = _plain_format(config, method)
    if name is None:
        raise config.refuse(
            f"quantisation method {method[:40]!r} is not modelled; give the 16-bit model and say --dtype fp8, int8, int4 or nvfp4."
        )
    label = "mxfp4" if method == "mxfp4" else method

    def format_of(module: str) -> str | None:
        linear = module != "lm_head" and (method != "mxfp4" or ".experts." in module)
        return name if linear and not kept.match(module) else None

    return _Scheme(label=label, format_of=format_of)


def _plain_format(config: Fields, method: str) -> str | None:
    """The one format of a method that has one; None where it is not known."""
    if method == "fp8":
        block = config.integers("weight_block_size", low=1)
        return "fp8-block" if block else "fp8"
    if method in ("fbgemm_fp8", "ptpc_fp8"):
        return "fp8"
    if method == "mxfp4":
        return "mxfp4"
    if method in ("awq", "gptq", "auto-round", "auto_round", "awq_marlin", "gptq_marlin", "intel/auto-round"):
        bits = config.integer("bits", "w_bit", default=4)
        group = config.integer("group_size", "q_group_size", default=128, low=-1)
        return {4: "int4-g32" if group == 32 else "int4", 8: "int8-wo"}.get(bits)
    if method in ("bitsandbytes", "bnb"):
        return "int4" if config.flag("load_in_4bit", "_load_in_4bit") else "int8-wo"
    if method in ("eetq",):
        return "int8-wo"
    return None


def _modelopt(config: Fields) -> _Scheme:
    """NVIDIA modelopt: an algorithm for all linear layers but the excluded ones, or one for each named layer."""
    algorithm = config.text("quant_algo").upper()
    kv = _kv(config)
    kept = _Names([*config.texts("exclude_modules"), *config.texts("ignore")])
    if algorithm == "MIXED_PRECISION":
        named = config.child("quantized_layers")
        if named is None:
            raise config.refuse("quantized_layers is missing, and the bytes of a mixed-precision checkpoint depend on it.")
        table: dict[str, str] = {}
        for name, algo in named.nested_texts("quant_algo"):
            if algo.upper() not in _ALGORITHMS:
                raise config.refuse(f"quantisation {algo[:40]!r} is not modelled.")
            table[_short(name)] = _ALGORITHMS[algo.upper()]
        return _Scheme(label="mixed", format_of=lambda module: None if kept.match(module) else _nearest(table, module), kv=kv)
    if not algorithm and not config.has("config_groups"):
        raise config.refuse("quant_algo is missing, and the bytes of a quantised checkpoint depend on it.")
    if algorithm not in _ALGORITHMS:
        raise config.refuse(f"quantisation {algorithm[:40]!r} is not modelled; give the 16-bit model and say --dtype.")
    name = _ALGORITHMS[algorithm]
    caveats = (
        () if kept.patterns else ("the checkpoint does not list what it leaves in 16 bits; all layers are counted as quantised",)
    )

    def format_of(module: str) -> str | None:
        return None if module == "lm_head" or kept.match(module) else name

    return _Scheme(label=name, format_of=format_of, kv=kv, caveats=caveats)


def _nearest(table: Mapping[str, str], module: str) -> str | None:
    """The format of a module: its own, or that of the nearest module around it (`...mlp.experts` names all experts at once), or,
    for an expert, that of another matrix of the same layer's experts (fused ones have other names)."""
    parts = module.split(".")
    for stop in range(len(parts), 0, -1):
        if (found := table.get(".".join(parts[:stop]))) is not None:
            return found
    before, expert, _ = module.partition(".experts.")
    return next((name for key, name in table.items() if expert and key.startswith(before + expert)), None)


def _compressed_tensors(config: Fields) -> _Scheme:
    """vLLM's llm-compressor: groups of target modules with bits, type and grouping each."""
    groups = config.child("config_groups")
    if groups is None:
        raise config.refuse("config_groups is missing, and the bytes of a quantised checkpoint depend on it.")
    kept = _Names(config.texts("ignore"))
    found: list[tuple[_Names, str]] = []
    for group in groups.children():
        weights = group.child("weights")
        if weights is None:
            continue
        name = _group_format(weights, weight_only=not group.has("input_activations"))
        targets = group.texts("targets")
        found.append((_Names([] if "Linear" in targets else targets), name))
    if not found:
        raise config.refuse("config_groups quantises no weights; drop the quantization_config.")

    def format_of(module: str) -> str | None:
        if kept.match(module):
            return None
        for targets, name in found:
            if (not targets.patterns and module != "lm_head") or (targets.patterns and targets.match(module)):
                return name
        return None

    return _Scheme(label=found[0][1], format_of=format_of, kv=_kv(config))


def _group_format(weights: Fields, *, weight_only: bool) -> str:
    """The format of one group: 8 or 4 bits, float or integer, by block, channel or tensor."""
    bits, kind = weights.integer("num_bits"), weights.text("type", default="int")
    group = weights.integer("group_size", default=0, low=-1)
    if kind == "float" and bits == 8:
        return "fp8-block" if weights.text("strategy") == "block" else "int8-wo" if weight_only else "fp8"
    if kind == "float" and bits == 4:
        return "mxfp4" if group == 32 else "nvfp4-wo" if weight_only else "nvfp4"
    if kind == "int" and bits == 8:
        return "int8-wo" if weight_only else "int8"
    if kind == "int" and bits == 4:
        return "int4-g32" if group == 32 else "int4"
    raise weights.refuse(f"{bits}-bit {kind[:40]!r} weights are not modelled; give the 16-bit model and say --dtype.")


def _kv(config: Fields) -> str:
    """The KV cache's format where the checkpoint states one, else empty."""
    name = config.text("kv_cache_quant_algo").upper()
    if not name and config.is_text("kv_cache_scheme"):
        name = config.text("kv_cache_scheme").upper()
    if name:
        known = {"FP8": "fp8", "INT8": "int8", "NVFP4": "nvfp4", "NONE": ""}
        if name not in known:
            raise config.refuse(f"a KV cache in {name[:40]!r} is not modelled.")
        return known[name]
    scheme = config.child("kv_cache_scheme")
    if scheme is None:
        return ""
    bits, kind = scheme.integer("num_bits"), scheme.text("type", default="float")
    if bits != 8:
        raise scheme.refuse(f"a KV cache of {bits} bits is not modelled.")
    return "fp8" if kind == "float" else "int8"


def _short(name: str) -> str:
    """A module's name from "layers." on, whatever the checkpoint wraps the decoder in; the head's without its wrapper."""
    at = name.find("layers.")
    if at >= 0:
        return name[at:]
    return "lm_head" if name.endswith("lm_head") else name


class _Names:
    """A list of excluded (or targeted) modules: whole dotted runs, `*` globs, or compressed-tensors' `re:` patterns.

    An untrusted regular expression is never run: `.*` reads as a glob's star, one group of alternatives is written out,
    and anything richer is refused.
    """

    __slots__ = ("globs", "patterns", "runs")

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns
        self.globs: list[str] = []
        self.runs: set[str] = set()
        for pattern in patterns:
            if pattern.startswith(_ELSEWHERE):
                continue
            for glob in _globs(pattern):
                if "*" in glob or "?" in glob:
                    self.globs.append(glob)
                else:
                    self.runs.add(_short(glob))

    def match(self, module: str) -> bool:
        """Whether `module` (from "layers." on) is listed, alone or under a listed parent."""
        parts = module.split(".")
        for start in range(len(parts)):
            for stop in range(start + 1, len(parts) + 1):
                if ".".join(parts[start:stop]) in self.runs:
                    return True
        return any(fnmatchcase(module, _short(glob)) or fnmatchcase("model." + module, glob) for glob in self.globs)


def _globs(pattern: str) -> list[str]:
    """Globs that match what `pattern` does."""
    if not pattern.startswith("re:"):
        return [pattern]
    body = pattern[3:].strip("^$").replace("\\.", "\0").replace(".*", "*")
    head, opened, rest = body.partition("(")
    options, tail = [""], ""
    if opened:
        inner, closed, tail = rest.partition(")")
        options = inner.removeprefix("?:").split("|")
        if not closed:
            return []
    texts = [(head + option + tail).replace("\0", ".") for option in options]
    return [f"{x}*" for x in texts if not set(x) & set("()[]{}+|\\^$")]  # `re.match` leaves the end open
