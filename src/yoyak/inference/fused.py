"""The forward pass of decoder-only models on a GPU, by fused kernels, over weights that are side by side.

It computes what transformers' modules do, to the same roundings but for the order of sums. These launch some forty
kernels a layer, ours a dozen.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, pad

from yoyak.core.gpu import sent
from yoyak.inference.paged_cache import PAGE, PagedCache
from yoyak.modeling.attention import each_row_alone, has_plain_attention, packed_rows, supports_flash

HEAD_SIZES = 16, 32, 64, 128, 256
ACTIVATIONS = "silu", "gelu_pytorch_tanh"
"""By transformers' names."""
LOGIT_BYTES = 16
"""Of a candidate and an entry of the vocabulary: logits and what is made of them to choose, eagerly and in a graph."""
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From the number of a layer, query, key and value, each (tokens, heads, head size), to an output like the query."""


def has_triton() -> bool:
    """PyTorch for CUDA brings it."""
    return importlib.util.find_spec("triton") is not None


def supports_fused(model: Any) -> bool:
    """Whether this model can be computed so on this machine."""
    return (
        has_plain_attention(model)
        and model.device.type == "cuda"
        and has_triton()
        and torch.cuda.get_device_capability() >= (8, 0)
        and model.model.layers[0].self_attn.head_dim in HEAD_SIZES
        and _activation(model) in ACTIVATIONS
    )


def _activation(model: Any) -> str:
    config = model.config.get_text_config()
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


class FusedDecoder:
    """Of one model. Its projections of the same input are stored side by side, and the model's own weights are views of
    these."""

    def __init__(self, model: Any) -> None:
        self.model, self.base, self.config = model, model.model, model.config.get_text_config()
        self.layers = [_Layer(layer, _activation(model)) for layer in self.base.layers]
        self.flash = supports_flash(model)

    @property
    def page_bytes(self) -> int:
        return math.prod(self._pool_shape(1)) * int(self.model.dtype.itemsize)

    def pool(self, pages: int) -> torch.Tensor:
        return torch.empty(self._pool_shape(pages), dtype=self.model.dtype, device=self.model.device)

    def _pool_shape(self, pages: int) -> tuple[int, ...]:
        attention = self.base.layers[0].self_attn
        return len(self.layers), 2, pages, self.config.num_key_value_heads, PAGE, attention.head_dim

    def activation_bytes(self, tokens: int, lanes: int) -> int:
        """Most that is in use beside weights and pages, for so many prompt tokens or candidates at once."""
        heads = self.config.num_attention_heads + 2 * self.config.num_key_value_heads
        attention = self.base.layers[0].self_attn
        values = 4 * self.config.hidden_size + 2 * heads * attention.head_dim + 3 * self.config.intermediate_size
        return int(tokens * values * self.model.dtype.itemsize + lanes * self.config.vocab_size * LOGIT_BYTES)

    def prefill(self, prompts: Sequence[list[int]], places: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        """Logits after each prompt, shape (prompts, vocabulary). Keys and values of their tokens go to `places`."""
        device, lengths = self.model.device, [len(prompt) for prompt in prompts]
        tokens = sent([token for prompt in prompts for token in prompt], device)
        positions = sent(torch.cat([torch.arange(length) for length in lengths]), device)
        borders = sent(pad(torch.tensor(lengths).cumsum(0), (1, 0)).int(), device)

        def over_prompts(layer: int, *heads: torch.Tensor) -> torch.Tensor:
            attention = self.base.layers[layer].self_attn
            window = getattr(attention, "sliding_window", None)
            query, key, value = (each.transpose(0, 1)[None] for each in heads)
            if not self.flash:
                return each_row_alone(query, key, value, lengths, attention.scaling, window)[0]
            output, _ = packed_rows(
                *(attention, query, key, value, None),
                cu_seq_lens_q=borders,
                max_length_q=max(lengths),
                scaling=attention.scaling,
                sliding_window=window,
            )
            return output[0]

        return self._logits(tokens, positions, places, pool, over_prompts, borders[1:].long() - 1)

    def step(self, tokens: torch.Tensor, newest: torch.Tensor, cache: PagedCache) -> torch.Tensor:
        """Logits (slots, candidates, vocabulary) after `tokens` (slots, candidates), each candidate's token number
        `newest` (slots,)."""
        from yoyak.inference.kernels import attend

        cache.newest.copy_(newest)
        positions = (cache.lengths + cache.newest).repeat_interleave(cache.candidates)

        def over_pages(layer: int, query: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            attention = self.base.layers[layer].self_attn
            return attend(
                query,
                cache.pool[layer],
                (cache.prompt_tables, cache.lengths),
                (cache.own_tables.flatten(0, 1), cache.newest),
                attention.scaling,
                getattr(attention, "sliding_window", None),
            )

        logits = self._logits(tokens.flatten(), positions, cache.places_of_newest(), cache.pool, over_pages, None)
        return logits.view(*tokens.shape, -1)

    def _logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        places: torch.Tensor,
        pool: torch.Tensor,
        attend: Attend,
        keep: torch.Tensor | None,
    ) -> torch.Tensor:
        """Of all tokens, or of those to `keep`: the last layer computes no more than the others need."""
        from yoyak.inference.kernels import rms_norm

        hidden = self.base.embed_tokens(tokens)
        angles = self._angles(hidden, positions)
        hidden, normed = rms_norm(self.base.layers[0].input_layernorm, hidden)
        for number, layer in enumerate(self.layers):
            attended = layer.attended(normed, angles, pool[number], places, number, attend)
            if keep is not None and number == len(self.layers) - 1:
                attended, hidden = attended[keep], hidden[keep]
            following = self.layers[number + 1].norm if number + 1 < len(self.layers) else self.base.norm
            hidden, normed = layer.after_attention(hidden, attended, following)
        logits: torch.Tensor = self.model.lm_head(normed)
        if softcap := getattr(self.config, "final_logit_softcapping", None):
            logits = (logits / softcap).tanh() * softcap
        return logits

    def _angles(self, hidden: torch.Tensor, positions: torch.Tensor) -> dict[str | None, Any]:
        """Cosines and sines of each kind of layer, both (tokens, head size)."""
        kinds = {layer.kind for layer in self.layers}
        names = [(kind, () if kind is None else (kind,)) for kind in kinds]
        found = {kind: self.base.rotary_emb(hidden[None], positions[None], *name) for kind, name in names}
        return {kind: tuple(each[0] for each in pair) for kind, pair in found.items()}


class _Layer:
    """A decoder layer of any of the four families."""

    def __init__(self, layer: Any, activation: str) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention, self.mlp, self.activation = attention, mlp, activation
        self.gemma = hasattr(layer, "pre_feedforward_layernorm")
        self.kind: str | None = attention.layer_type if self.gemma else None
        """Whose angles it takes: Gemma's layers have two kinds."""
        self.norm = layer.input_layernorm
        self.head_norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        self.after = layer.post_attention_layernorm
        self.before_mlp = layer.pre_feedforward_layernorm if self.gemma else layer.post_attention_layernorm
        self.after_mlp = layer.post_feedforward_layernorm if self.gemma else None
        self.projected = side_by_side([attention.q_proj, attention.k_proj, attention.v_proj])
        self.gate_and_up = side_by_side([mlp.gate_proj, mlp.up_proj])

    def attended(
        self, normed: torch.Tensor, angles: Any, pages: torch.Tensor, places: torch.Tensor, number: int, attend: Attend
    ) -> torch.Tensor:
        """What the heads found, shape (tokens, heads x head size)."""
        from yoyak.inference.kernels import rotate_and_store

        size = self.attention.head_dim
        query, key, value = (each.view(len(each), -1, size) for each in self.projected(normed))
        rotate_and_store(query, key, value, self.head_norms, angles[self.kind], pages, places)
        return attend(number, query, key, value).flatten(1)

    def after_attention(
        self, hidden: torch.Tensor, attended: torch.Tensor, following: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's output, and that normalised for the `following` layer."""
        from yoyak.inference.kernels import gated, rms_norm

        change = self.attention.o_proj(attended)
        if self.gemma:
            _, change = rms_norm(self.after, change)
        hidden, normed = rms_norm(self.before_mlp, change, hidden)
        gate, up = self.gate_and_up(normed)
        change = self.mlp.down_proj(gated(gate, up, self.activation))
        if self.gemma:
            _, change = rms_norm(self.after_mlp, change)
        return rms_norm(following, change, hidden)


def side_by_side(layers: Sequence[Any]) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
    """The outputs of linear layers for one input, by a single product where they are plain ones: their weights become
    views of one tensor. Layers in 4 bits, and adapters that are not merged, are called one by one."""
    plain = [_plain(layer) for layer in layers]
    if not all(type(layer) is nn.Linear for layer in plain):
        return lambda hidden: [layer(hidden) for layer in layers]
    sizes = [layer.out_features for layer in plain]
    weight = _joined([layer.weight for layer in plain])
    bias = _joined([layer.bias for layer in plain]) if plain[0].bias is not None else None
    return lambda hidden: torch.split(linear(hidden, weight, bias), sizes, -1)


def _plain(layer: Any) -> Any:
    """Below an adapter that is switched off."""
    return layer.get_base_layer() if getattr(layer, "disable_adapters", False) else layer


def _joined(parts: Sequence[nn.Parameter]) -> torch.Tensor:
    """One after another in one tensor, which they are views of from then on, if they were not before."""
    first = parts[0]
    ends = [part.data_ptr() + part.numel() * part.element_size() for part in parts]
    stands = [part.data_ptr() for part in parts[1:]] == ends[:-1]
    lines = sum(len(part) for part in parts)
    if stands and first.untyped_storage().data_ptr() == parts[-1].untyped_storage().data_ptr():
        return first.data.as_strided((lines, *first.shape[1:]), first.stride())
    # Not as tensors of the inference mode, in which decoding calls this: a tuned model learns from these weights.
    with torch.inference_mode(False), torch.no_grad():
        joined = torch.cat([part.data for part in parts])
        for part, view in zip(parts, torch.split(joined, [len(part) for part in parts]), strict=True):
            part.data = view
    return joined
