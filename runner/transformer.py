"""The architecture: embedding, blocks, final norm, head. One rank's share of it under a plan.

Legend: `N` rows of a step, one a token, `B` sequences, `T` prompt tokens, `D` hidden size, `V` vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advisor.errors import PlanError, QuestionError
from advisor.specs.experiment import Exchange
from advisor.specs.model import GroupedAttention, LatentAttention, Layer, ModelSpec, MoeFfn
from advisor.specs.plan import Coordinates, Plan, SplitRule, layer_bounds
from runner.attention import GroupedAttentionShard, LatentAttentionShard
from runner.exchange import check_exchange
from runner.ffn import DenseShard, MoeShard
from runner.fused import Fused
from runner.kv_cache import KvCache, LayerCache
from runner.mesh import Mesh
from runner.norm import Norm
from runner.parallel import Build, VocabularyEmbedding, VocabularyHead
from runner.pointwise import Pointwise
from runner.rope import Rotation
from runner.step import Step

LAYER_SPLIT: SplitRule = "last_spared"  # vLLM's: 32 / 3 = 11, 11, 10


class Block(nn.Module):
    """One decoder layer. The residual stream `x` and the last `branch`, not yet added to it, travel apart: the next norm adds
    them in the same kernel. In a parallel block both branches read the same stream, and one all-reduce serves both.

    `enter`, `leave` and `feed` have no collective in them and are compiled; between them are the attention's kernels and the sums
    over the ranks. A mixture of experts has collectives of its own: there only its parts are compiled.
    """

    def __init__(
        self, build: Build, spec: ModelSpec, layer: Layer, pointwise: Pointwise, *, exchange: Exchange, compiled: bool
    ) -> None:
        super().__init__()
        numerics = spec.numerics
        placement = numerics.norm_placement
        self.layer, self.mesh, self.scale = layer, build.mesh, numerics.residual_scale
        assert isinstance(layer.mixer, GroupedAttention | LatentAttention)
        assert layer.ffn is not None

        def norm(name: str) -> Norm:
            return Norm(build.at(name), numerics, spec.hidden_size, pointwise, bias=layer.norm_bias)

        self.attention_norm = norm("attention_norm") if placement != "post" else None
        self.attention: GroupedAttentionShard | LatentAttentionShard
        if isinstance(layer.mixer, LatentAttention):
            self.attention = LatentAttentionShard(build.at("attention"), spec, layer.mixer, pointwise)
        else:
            self.attention = GroupedAttentionShard(build.at("attention"), spec, layer.mixer, pointwise)
        self.attention_post_norm = norm("attention_post_norm") if placement != "pre" else None
        self.ffn_norm = norm("ffn_norm") if placement != "post" and layer.norms > 1 else None
        self.ffn: DenseShard | MoeShard
        if isinstance(layer.ffn, MoeFfn):
            self.ffn = MoeShard(build.at("ffn"), spec, layer.ffn, pointwise, exchange=exchange)
        else:
            self.ffn = DenseShard(build.at("ffn"), spec, layer.ffn, pointwise)
        self.ffn_post_norm = norm("ffn_post_norm") if placement != "pre" else None
        self.enter = Fused(self._enter, compiled=compiled)
        self.leave = Fused(self.attention.leave, compiled=compiled)
        self.feed = Fused(self._feed, compiled=compiled and isinstance(self.ffn, DenseShard))

    def forward(self, x: Tensor, branch: Tensor | None, step: Step, cache: LayerCache) -> tuple[Tensor, Tensor]:
        """The stream (N, D) and the branch of the block before -> the same of this block."""
        x, h, projected = self.enter(x, branch)
        attended = self.leave(self.attention.attend(projected, step, cache))
        if self.layer.parallel_residual:
            _, fed = self.feed(x, None, h)
            return x, self._closed(self.mesh.all_reduce(attended + fed, "tp"), None)
        x, fed = self.feed(x, self.mesh.all_reduce(attended, "tp"), None)
        return x, self._closed(self.mesh.all_reduce(fed, "tp"), self.ffn_post_norm)

    def _enter(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The stream with the branch added, its norm, and what the mixer's first products make of that."""
        x, h = _normed(self.attention_norm, x, branch)
        return x, h, self.attention.enter(h)

    def _feed(self, x: Tensor, attended: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """The stream with the attention's branch added, and this rank's part of the feed-forward's. Both branches of a parallel
        block read the stream as it is: there is nothing to add, and `h` is what the attention read.
        """
        if attended is None:
            assert h is not None
            return x, self.ffn(h if self.ffn_norm is None else self.ffn_norm(x))
        x, h = _normed(self.ffn_norm, x, self._closed(attended, self.attention_post_norm))
        return x, self.ffn(h)

    def _closed(self, branch: Tensor, norm: Norm | None) -> Tensor:
        branch = branch if norm is None else norm(branch)
        return branch if self.scale == 1.0 else branch * self.scale


class Transformer(nn.Module):
    """What one rank computes: the layers of its stage, with the embedding on the first and the head on the last.

    Weights are zero until `weights.initialise` or `weights.load` fills them. `layers` takes only the first so many of the model.
    The cache has room for `max_batch` sequences of `max_context` tokens of one micro-batch; `new_cache` makes further ones.
    `compiled` fuses what lies between the attention and the collectives (torch.compile); `exchange` is how tokens of attention
    groups meet the experts.
    Raises PlanError or QuestionError for what it cannot compute.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: Plan,
        coordinates: Coordinates,
        mesh: Mesh,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        layers: int | None = None,
        max_batch: int,
        max_context: int,
        compiled: bool = False,
        exchange: Exchange = "all_gather",
    ) -> None:
        super().__init__()
        _refuse_unsupported(spec, plan)
        check_exchange(exchange, plan)
        self.exchange = exchange
        self.spec, self.mesh, self.device, self.dtype = spec, mesh, torch.device(device), dtype
        taken = spec.layers[:layers] if layers else spec.layers
        try:
            first, last = layer_bounds(len(taken), plan, LAYER_SPLIT)[coordinates.stage]
        except ValueError as error:
            raise PlanError(f"{plan.label} cannot run: {error}.") from error
        build = Build(mesh=mesh, device=self.device, dtype=dtype)
        pointwise = Pointwise.of(compiled=compiled)
        self.embedding = VocabularyEmbedding(build, spec.vocab_size, spec.hidden_size) if mesh.is_first_stage else None
        self.blocks = nn.ModuleList(
            Block(build.at(f"layers.{index}"), spec, taken[index], pointwise, exchange=exchange, compiled=compiled)
            for index in range(first, last)
        )
        if mesh.is_last_stage:
            bias = taken[-1].norm_bias
            self.norm = Norm(build.at("norm"), spec.numerics, spec.hidden_size, pointwise, bias=bias)
            tied = self.embedding.weight if spec.tied_embeddings and self.embedding is not None else None
            self.head = VocabularyHead(
                build,
                "embedding" if spec.tied_embeddings else "head",
                spec.vocab_size,
                spec.hidden_size,
                weights=spec.formats.head,
                bias=spec.head_bias,
                tied=tied,
            )
        self.rotations = self._rotations(taken[first:last])
        self.cache = self.new_cache(max_batch, max_context)

    def new_cache(self, batch: int, context: int) -> KvCache:
        """An empty cache for `batch` sequences of up to `context` tokens; decode is fastest where both are what is used."""
        shapes = [block.attention.cache_shape for block in self.decoder()]
        return KvCache(shapes, batch=batch, context=context, device=self.device, dtype=self.dtype)

    def exchange_by(self, exchange: Exchange) -> None:
        """From the next step on exchange the experts' tokens this way. Raises PlanError where the plan cannot."""
        check_exchange(exchange, self.mesh.plan)
        self.exchange = exchange
        for block in self.decoder():
            if isinstance(block.ffn, MoeShard):
                block.ffn.exchange = exchange

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights of this rank."""
        return sum(t.numel() * t.element_size() for t in self.buffers())

    @torch.inference_mode()
    def prefill(self, x: Tensor, cache: KvCache | None = None, *, past: int = 0) -> Tensor:
        """Prompts, or the chunk of them after `past` cached tokens: tokens (B, T) on the first stage, else states (B, T, D).

        Logits (B, V) of each last token on the last stage, states (B, T, D) on the others. With attention-DP the sequences are
        those of this rank's own group, as many in every group.
        """
        cache = cache or self.cache
        B, T = x.shape[:2]
        if cache.batch < B or cache.context < past + T:
            raise QuestionError(f"{B} prompts of {past + T} tokens exceed the cache of {cache.batch} x {cache.context} tokens.")
        y = self._forward(x.flatten(0, 1), self._step(None, 0, prompts=B, chunk=T, past=past), cache)
        return y if self.mesh.is_last_stage else y.view(B, T, -1)

    @torch.inference_mode()
    def decode(self, x: Tensor, positions: Tensor, cache: KvCache | None = None, *, span: int | None = None) -> Tensor:
        """One token a sequence: tokens (B) on the first stage, else states (B, 1, D); `positions` (B) counts from zero.

        Logits (B, V) on the last stage, states (B, 1, D) on the others. `span` is how many cached tokens to read at most, no less
        than the longest position + 1 (None: exactly that, which waits for the device; a captured graph needs it given).
        """
        cache = cache or self.cache
        span = self._span(x.shape[0], positions, cache, span)
        y = self._forward(x if x.dim() == 1 else x[:, 0], self._step(positions, span), cache)
        return y if self.mesh.is_last_stage else y[:, None]

    @torch.inference_mode()
    def mixed(self, x: Tensor, positions: Tensor, cache: KvCache, *, chunk: int, past: int = 0, span: int | None = None) -> Tensor:
        """A decode of B sequences and `chunk` tokens of one prompt in one pass: tokens (B + chunk), else states (B + chunk, D).

        The prompt is the cache's sequence B, of which `past` tokens are there. Logits (B + 1, V) on the last stage, the prompt's
        last token at the end; states on the others.
        """
        decodes = positions.shape[0]
        span = self._span(decodes + 1, positions, cache, span)
        if cache.context < past + chunk:
            raise QuestionError(f"a prompt of {past + chunk} tokens exceeds the cache of {cache.context} tokens a sequence.")
        return self._forward(x, self._step(positions, span, prompts=1, chunk=chunk, past=past), cache)

    def states(self, batch: int, tokens: int) -> Tensor:
        """An empty (B, T, D) for what the previous stage sends."""
        return torch.empty((batch, tokens, self.spec.hidden_size), device=self.device, dtype=self.dtype)

    def _span(self, sequences: int, positions: Tensor, cache: KvCache, span: int | None) -> int:
        """The span to read. Raises QuestionError where the cache is too small."""
        span = int(positions.max().item()) + 1 if span is None else span
        if sequences > cache.batch or span > cache.context:
            raise QuestionError(f"{sequences} x {span} tokens exceed the cache of {cache.batch} x {cache.context} tokens.")
        return span

    def _step(self, positions: Tensor | None, span: int, *, prompts: int = 0, chunk: int = 0, past: int = 0) -> Step:
        """The index arithmetic of a pass: decodes at `positions`, then prompts."""
        decodes = 0 if positions is None else positions.shape[0]
        sequences = torch.arange(decodes + prompts, device=self.device)
        if prompts:
            new = torch.arange(past, past + chunk, device=self.device).repeat(prompts)
            ends = torch.full_like(new, past + chunk)
            sequences = torch.cat((sequences[:decodes], sequences[decodes:].repeat_interleave(chunk)))
            at = new if positions is None else torch.cat((positions, new))
            lengths = ends if positions is None else torch.cat((positions + 1, ends))
        else:
            assert positions is not None
            at, lengths = positions, positions + 1
        turns = {name: rotation(at, lengths) for name, rotation in self.rotations.items()}
        return Step(
            decodes=decodes, span=span, prompts=prompts, chunk=chunk, past=past, positions=at, sequences=sequences, turns=turns
        )

    def _forward(self, x: Tensor, step: Step, cache: KvCache) -> Tensor:
        numerics = self.spec.numerics
        if self.embedding is not None:
            x = self.embedding(x)
            # Gemma rounds the factor to the model's own type.
            x = x if numerics.embedding_scale == 1.0 else x * torch.tensor(numerics.embedding_scale, dtype=self.dtype).item()
        branch: Tensor | None = None
        for block, layer_cache in zip(self.decoder(), cache.layers, strict=True):
            x, branch = block(x, branch, step, layer_cache)
        if not self.mesh.is_last_stage:
            return x if branch is None else x + branch
        _, h = self.norm.after(_answered(x, step), None if branch is None else _answered(branch, step))
        logits: Tensor = self.head(h)
        logits = logits if numerics.logit_scale == 1.0 else logits * numerics.logit_scale
        cap = numerics.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def decoder(self) -> list[Block]:
        """The layers of this rank's stage."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def _rotations(self, layers: tuple[Layer, ...]) -> dict[str, Rotation]:
        ropes = dict(self.spec.numerics.ropes)
        found: dict[str, Rotation] = {}
        for layer in layers:
            mixer = layer.mixer
            if isinstance(mixer, GroupedAttention | LatentAttention) and mixer.rope != "none" and mixer.rope not in found:
                width = mixer.rope_dim if isinstance(mixer, LatentAttention) else mixer.head_dim
                found[mixer.rope] = Rotation(ropes[mixer.rope], width, self.device)
        return found


def _answered(x: Tensor, step: Step) -> Tensor:
    """The rows that get logits: every decode and the last token of each prompt."""
    if not step.prompts:
        return x
    last = x[step.decodes :].view(step.prompts, step.chunk, -1)[:, -1]
    return torch.cat((x[: step.decodes], last)) if step.decodes else last


def _normed(norm: Norm | None, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
    """Add the branch to the stream, and norm it where the block norms first."""
    if norm is not None:
        return norm.after(x, branch)
    x = x if branch is None else x + branch
    return x, x


def _refuse_unsupported(spec: ModelSpec, plan: Plan) -> None:
    """Raises QuestionError or PlanError for what this transformer does not compute."""
    missing = list(spec.numerics.unsupported)
    if spec.numerics.position not in ("rope", "none"):
        missing.append(f"{spec.numerics.position} positions")
    for layer in dict.fromkeys(spec.layers):
        mixer = layer.mixer
        if not isinstance(mixer, GroupedAttention | LatentAttention):
            missing.append("recurrent layers" if mixer is not None else "layers without attention")
        elif mixer.index_heads:
            missing.append("a sparse attention indexer")
        elif isinstance(mixer, GroupedAttention) and (mixer.gated or mixer.head_gate):
            missing.append("gated attention")
        elif isinstance(mixer, GroupedAttention) and (mixer.shares_kv or mixer.k_is_v):
            missing.append("shared keys and values")
        elif isinstance(mixer, LatentAttention) and (mixer.absorbed or mixer.gated or mixer.sinks):
            missing.append("compressed latent attention")
        if layer.ffn is None:
            missing.append("layers without a feed-forward block")
        if layer.parallel_ffn is not None or layer.extra_params:
            missing.append("side branches")
    if missing:
        what = ", ".join(dict.fromkeys(missing))
        raise QuestionError(
            f"the runner does not compute {what}, which {spec.name} has; measure it with --engine vllm or another engine."
        )
    if plan.ep > 1 and not spec.is_moe:
        raise PlanError(f"ep={plan.ep} needs experts, and {spec.name} has none; leave ep out.")
