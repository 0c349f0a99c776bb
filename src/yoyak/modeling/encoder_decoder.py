"""Beams of BART and T5, whose decoders look at the encoded dialogue by keys and values that all beams share."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.nn.functional import embedding, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import EncoderDecoderCache

from yoyak.modeling.beam_cache import BeamCache, Layers, Step, aligned, as_bias


def is_known(model: Any) -> bool:
    """Whether `EncoderDecoder` knows the family."""
    return model.config.model_type in FAMILIES


class EncoderDecoder:
    """A model of a family that `is_known`. Beams are to it what positions of a sequence are to transformers' layers."""

    def __init__(self, model: Any, slots: int, beams: int) -> None:
        self.model, self.family = model, FAMILIES[model.config.model_type](model)
        self.own = BeamCache(slots, beams, model.device)
        """Whose prompt is the token that a decoder begins with."""
        self.encoded = Encoded(slots, model.device)

    def read(self, at: torch.Tensor, prompts: list[list[int]]) -> tuple[torch.Tensor, bool]:
        """Logits after the first token (prompts, vocabulary), whose dialogues are put at slots; whether anything was
        moved for it."""
        device = self.model.device
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        seen = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        hidden = self.model.get_encoder()(input_ids=ids, attention_mask=seen.long()).last_hidden_state
        layers = {number: _projected(module, hidden) for number, module in enumerate(self.family.cross_attentions)}
        start = torch.full((len(prompts), 1), self.model.config.decoder_start_token_id, device=device)
        first, no_bias = FirstToken(), hidden.new_zeros((1, 1, 1, 1))
        bias_of_encoded = as_bias(seen, hidden.dtype)[:, None, None]
        logits = self.family.logits(
            Asked(start, torch.zeros_like(start), no_bias, no_bias, bias_of_encoded, Past(first, layers))
        )
        moved = self.own.write_prompts(at, [1] * len(prompts), first.layers)
        return logits[:, 0], self.encoded.write(at, lengths, layers) | moved

    def after(self, step: Step) -> torch.Tensor:
        """Logits (slots, beams, vocabulary)."""
        positions = self.own.begin(step.number).expand_as(step.tokens)
        dtype = self.model.dtype
        return self.family.logits(
            Asked(
                step.tokens,
                positions,
                as_bias(self.own.seen(step.ancestors), dtype),
                self.family.bias_by_distance(self.own.ago()),
                as_bias(self.encoded.seen(), dtype),
                Past(self.own, self.encoded.layers),
            )
        )

    def reserve(self, tokens: int) -> bool:
        return self.own.reserve(tokens)

    def forget(self, at: torch.Tensor) -> None:
        """Dialogues at slots."""
        self.own.lengths[at] = 0
        self.encoded.lengths[at] = 0

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.own.select(at)
        self.encoded.select(at)


class Encoded:
    """Keys and values of dialogues, for the decoder's attention to them."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self.lengths = torch.zeros(slots, dtype=torch.long, device=device)
        """0 at an empty slot."""
        self.layers: Layers = {}
        """Shape (slots, heads, width, head size)."""

    @property
    def width(self) -> int:
        return next(iter(self.layers.values()))[0].shape[2] if self.layers else 0

    def write(self, at: torch.Tensor, lengths: torch.Tensor, layers: Layers) -> bool:
        """Put dialogues at slots, of `layers` (dialogues, heads, width, head size); whether anything had to be
        moved."""
        if not self.layers:
            for layer, (keys, _) in layers.items():
                _, heads, _, size = keys.shape
                none = keys.new_zeros((len(self.lengths), heads, 0, size))
                self.layers[layer] = none, none.clone()
        self.lengths[at] = lengths
        moved = self._fit_width()
        for layer, pair in layers.items():
            for stored, new in zip(self.layers[layer], pair, strict=True):
                stored[at, :, : new.shape[2]] = new
        return moved

    def _fit_width(self) -> bool:
        """Wide enough, and not twice as wide as it must be; whether anything was moved."""
        needed = aligned(max(1, int(self.lengths.max())))
        if needed <= self.width < 2 * needed:
            return False
        more = (0, 0, 0, needed - self.width)
        self.layers = {layer: (pad(keys, more), pad(values, more)) for layer, (keys, values) in self.layers.items()}
        return True

    def seen(self) -> torch.Tensor:
        """Shape (slots, 1, 1, width). An empty slot sees what is there: a softmax over nothing is no number."""
        return (torch.arange(self.width, device=self.lengths.device) < self.lengths.clamp(min=1)[:, None])[
            :, None, None
        ]

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.lengths = self.lengths[at]
        self.layers = {layer: (keys[at], values[at]) for layer, (keys, values) in self.layers.items()}
        self._fit_width()


class FirstToken:
    """Keeps the keys and values of a decoder's first token, which sees itself alone."""

    def __init__(self) -> None:
        self.layers: Layers = {}

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Shape (rows, heads, 1, head size)."""
        self.layers[layer] = key[:, :, 0], value[:, :, 0]
        return key, value


class Past(EncoderDecoderCache):  # type: ignore[misc]
    """What transformers' layers ask for keys and values."""

    def __init__(self, own: BeamCache | FirstToken, encoded: Layers) -> None:
        self.self_attention_cache = own
        layers = [SimpleNamespace(keys=keys, values=values) for keys, values in encoded.values()]
        self.cross_attention_cache = SimpleNamespace(layers=layers)
        # As if each layer had already been there: keys of dialogues are never computed by the layers.
        self.is_updated = dict.fromkeys(encoded, True)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """T5 asks, but needs it only for a bias that it is given."""
        return 0


class Asked(NamedTuple):
    """What follows a token of each beam; biases are added to scores of attention."""

    tokens: torch.Tensor
    """Shape (slots, beams)."""
    positions: torch.Tensor
    """Shape (slots, beams)."""
    bias: torch.Tensor
    """Shape (slots, 1, beams, keys)."""
    bias_by_distance: torch.Tensor
    """Shape (slots, heads, 1, keys), or all of 1."""
    bias_of_encoded: torch.Tensor
    """Of attention to the dialogues, shape (slots, 1, 1, width)."""
    past: Past


class Bart:
    """Its decoder, one token of each beam at a time."""

    def __init__(self, model: Any) -> None:
        self.model, self.decoder = model, model.get_decoder()

    @property
    def cross_attentions(self) -> list[Any]:
        return [layer.encoder_attn for layer in self.decoder.layers]

    def bias_by_distance(self, ago: torch.Tensor) -> torch.Tensor:
        """It has learned positions instead."""
        return ago.new_zeros((1, 1, 1, 1))

    def logits(self, asked: Asked) -> torch.Tensor:
        """Shape (slots, beams, vocabulary)."""
        learned = self.decoder.embed_positions
        hidden = self.decoder.embed_tokens(asked.tokens) + embedding(asked.positions + learned.offset, learned.weight)
        hidden = self.decoder.layernorm_embedding(hidden)
        for layer in self.decoder.layers:
            hidden = layer(
                hidden,
                asked.bias,
                # Only asked whether it is there.
                encoder_hidden_states=hidden,
                encoder_attention_mask=asked.bias_of_encoded,
                past_key_values=asked.past,
            )
        logits: torch.Tensor = self.model.lm_head(hidden) + self.model.final_logits_bias
        return logits


class T5:
    """Its decoder, one token of each beam at a time."""

    def __init__(self, model: Any) -> None:
        self.model, self.decoder = model, model.get_decoder()
        config, first = model.config, self.decoder.block[0].layer[0].SelfAttention
        distances = torch.arange(config.relative_attention_max_distance + 1, device=model.device)
        buckets = first._relative_position_bucket(
            -distances,
            bidirectional=False,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        self.biases = first.relative_attention_bias(buckets)
        """By distance, of which the last one's is that of all greater ones, shape (distances, heads)."""

    @property
    def cross_attentions(self) -> list[Any]:
        return [block.layer[1].EncDecAttention for block in self.decoder.block]

    def bias_by_distance(self, ago: torch.Tensor) -> torch.Tensor:
        """From (slots, keys) to (slots, heads, 1, keys)."""
        biases: torch.Tensor = self.biases[ago.clamp(0, len(self.biases) - 1)].permute(0, 2, 1)[:, :, None]
        return biases

    def logits(self, asked: Asked) -> torch.Tensor:
        """Shape (slots, beams, vocabulary)."""
        hidden = self.decoder.embed_tokens(asked.tokens)
        no_bias = hidden.new_zeros((1, 1, 1, 1))
        for block in self.decoder.block:
            hidden, *_ = block(
                hidden,
                asked.bias,
                asked.bias_by_distance,
                # Only asked whether it is there.
                encoder_hidden_states=hidden,
                encoder_attention_mask=asked.bias_of_encoded,
                encoder_decoder_position_bias=no_bias,
                past_key_values=asked.past,
            )
        hidden = self.decoder.final_layer_norm(hidden)
        if self.model.config.scale_decoder_outputs:
            hidden = hidden * self.model.config.d_model**-0.5
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits


FAMILIES: dict[str, Callable[[Any], Bart | T5]] = {"bart": Bart, "t5": T5}
"""By transformers' `model_type`."""


def _projected(attention: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of dialogues (dialogues, width, hidden size), shape (dialogues, heads, width, head size)."""
    if hasattr(attention, "k_proj"):
        key, value, size = attention.k_proj, attention.v_proj, attention.head_dim
    else:
        key, value, size = attention.k, attention.v, attention.key_value_proj_dim
    shape = (*hidden.shape[:2], -1, size)
    return key(hidden).view(shape).transpose(1, 2), value(hidden).view(shape).transpose(1, 2)
