"""The model that is tuned: its adapters learn over dense weights, and answers are drawn from it as inference draws."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from yoyak.core.environment import device
from yoyak.core.records import Candidate, Prompt
from yoyak.inference.generate import Asked, as_texts, within_memory
from yoyak.inference.params import OneModelConfig
from yoyak.modeling.loading import Loaded


class Encoded(NamedTuple):
    """A dialogue, its prompt and its reference in tokens."""

    row: int
    prompt: Prompt
    ids: list[int]
    reference: list[int]

    @property
    def dialogue(self) -> str:
        return "\n".join(self.prompt.turns)


class Answers(NamedTuple):
    """To one prompt, as texts and as tokens."""

    candidates: list[Candidate]
    ids: list[list[int]]


class Policy:
    """A model with adapters that learn, and with them merged in to draw from."""

    def __init__(self, loaded: Loaded, adapter: Path) -> None:
        """`loaded`: base weights in the dtype in which inference has them."""
        self.loaded = loaded
        self.model = PeftModel.from_pretrained(loaded.model.to(device()), adapter, is_trainable=True)
        self._layers = [layer for layer in self.model.modules() if isinstance(layer, LoraLayer)]
        self._own = [_beside(layer.get_base_layer().weight) for layer in self._layers]
        for layer in self._layers:
            # To fp32, which autocast at once would take back to 16 bits: two copies of each input for nothing.
            layer.cast_input_dtype_enabled = False
        for module in self.model.modules():
            # What is learned is of the answers' own likelihoods, as they were drawn.
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def encoded(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        tokenizer = self.loaded.prompt_tokenizer
        return [
            Encoded(row, prompt, tokenizer.encode_prompt(prompt).ids, tokenizer.encode_summary(prompt.summary or ""))
            for row, prompt in enumerate(prompts)
        ]

    @contextmanager
    def merged(self) -> Iterator[Loaded]:
        """The model as inference has it. Merging and its reverse would round; so its own weights are put back."""
        for layer in self._layers:
            (adapter,) = layer.active_adapters
            weight = layer.get_base_layer().weight
            weight.data += layer.get_delta_weight(adapter).to(weight.dtype)
        try:
            with self.model.disable_adapter():
                yield replace(self.loaded, model=self.model.get_base_model().eval())
        finally:
            for layer, own in zip(self._layers, self._own, strict=True):
                layer.get_base_layer().weight.data.copy_(own)

    def answers(
        self, dialogues: Sequence[Encoded], config: OneModelConfig, told: Callable[[int], None]
    ) -> list[Answers]:
        """To each of the dialogues. Its row and `config.generation.seed` decide on its draws. `told` is given how many
        dialogues are done."""
        asked = [Asked(dialogue.row, [dialogue.ids], dialogue.dialogue) for dialogue in dialogues]
        asked.sort(key=lambda each: len(each.ids[0]), reverse=True)
        found = {}
        with self.merged() as loaded:
            for group in within_memory(loaded, asked, config):
                found.update({each.row: Answers(as_texts(loaded, drawn), drawn.ids) for each, drawn in group})
                told(len(found))
        return [found[dialogue.row] for dialogue in dialogues]


def _beside(weight: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, from which a GPU reads quickly."""
    copy = weight.detach().to("cpu", copy=True)
    return copy.pin_memory() if weight.device.type == "cuda" else copy
