"""The model that is tuned: its adapters learn over dense weights, and answers are drawn from it as inference draws."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from yoyak.core.environment import device
from yoyak.core.records import Candidate, Prompt
from yoyak.inference import decoding
from yoyak.inference.decoding import Candidates, Request
from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import Chooser
from yoyak.inference.script_guard import ScriptGuard
from yoyak.modeling.loading import Loaded, vocabulary_of


class Policy:
    """A model with adapters that learn, and with them merged in to draw from."""

    def __init__(self, loaded: Loaded, adapter: Path) -> None:
        """`loaded`: base weights in the dtype in which inference has them."""
        self.loaded = loaded
        base = loaded.model.to(device())
        self.model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
        self._layers = [layer for layer in self.model.modules() if isinstance(layer, LoraLayer)]
        self._own = [_beside(layer.get_base_layer().weight) for layer in self._layers]
        self._guard = ScriptGuard(loaded.tokenizer, loaded.end_ids, vocabulary_of(base), base.device)

    @contextmanager
    def merged(self) -> Iterator[Any]:
        """The model as inference has it. Merging and its reverse would round; so its own weights are put back."""
        for layer in self._layers:
            (adapter,) = layer.active_adapters
            weight = layer.get_base_layer().weight
            weight.data += layer.get_delta_weight(adapter).to(weight.dtype)
        try:
            with self.model.disable_adapter():
                yield self.model.get_base_model().eval()
        finally:
            for layer, own in zip(self._layers, self._own, strict=True):
                layer.get_base_layer().weight.data.copy_(own)

    def answers(
        self, prompts: Sequence[Prompt], ids: Sequence[list[int]], params: GenerationParams, seed: int
    ) -> list[tuple[list[Candidate], list[list[int]]]]:
        """Of each prompt the candidates, as texts and as tokens. `seed` and the prompt decide on its draws."""
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]), reverse=True)
        asked = [ids[number] for number in order]
        seeds = [zlib.crc32(repr((seed, prompts[number].fname)).encode()) for number in order]
        dialogues = ["\n".join(prompts[number].turns) for number in order]
        forbidden = (
            (lambda numbers: self._guard.forbidden([dialogues[number] for number in numbers]))
            if params.script_guard
            else None
        )
        ends = self.loaded.end_ids
        with self.merged() as model:
            chooser = Chooser(params, ends, model.device, seeds, forbidden)
            request = Request(params.candidates, params.max_new_tokens, ends, chooser.choose, chooser.facts)
            found = {
                order[number]: self._as_texts(candidates)
                for number, candidates in decoding.decode([model], [asked], params.batch_size, request)
            }
        return [found[number] for number in range(len(ids))]

    def _as_texts(self, drawn: Candidates) -> tuple[list[Candidate], list[list[int]]]:
        texts = self.loaded.prompt_tokenizer.decode(drawn.ids)
        candidates = [
            Candidate(text=text.strip(), log_probability=value, finished=ids[-1] in self.loaded.end_ids)
            for text, ids, value in zip(texts, drawn.ids, drawn.log_probabilities, strict=True)
        ]
        return candidates, drawn.ids


def _beside(weight: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, from which a GPU reads quickly."""
    copy = weight.detach().to("cpu", copy=True)
    return copy.pin_memory() if weight.device.type == "cuda" else copy
