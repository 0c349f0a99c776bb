"""Exported models as their users have them: by transformers and PEFT alone, from nothing but the exported folder."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yoyak.core.environment import device
from yoyak.exporting.conversation import Asked

AT_ONCE = 8
"""Dialogues of a batch, where padding changes nothing."""
GREEDILY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    **dict.fromkeys(
        (
            *("temperature", "top_p", "top_k", "length_penalty", "min_new_tokens"),
            *("repetition_penalty", "no_repeat_ngram_size"),
        )
    ),
}
"""What `generate` is told in place of the exported search."""


def load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (folder / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=dtype)
    else:
        seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
        model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder, dtype=dtype)
    # Of adapters it would be their base's.
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.to(device()).eval(), tokenizer


def prompt_ids(tokenizer: Any, asked: Asked) -> list[int]:
    if isinstance(asked, str):
        return list(tokenizer(asked).input_ids)
    return list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True).input_ids)


@torch.inference_mode()
def greedy(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, at_once: int = AT_ONCE
) -> list[list[int]]:
    """The tokens that `generate` writes where it always takes the likeliest, each summary with its end token and
    perhaps padding behind it; all else is as the model's own generation config has it."""
    seq2seq = model.config.is_encoder_decoder
    # The model's own config but for the search: its end tokens above all.
    config = copy.deepcopy(model.generation_config)
    config.update(**GREEDILY, max_new_tokens=max_new_tokens)
    found: list[list[int]] = []
    for start in range(0, len(prompts), at_once):
        batch = {"input_ids": list(prompts[start : start + at_once])}
        padded = tokenizer.pad(batch, padding_side="right" if seq2seq else "left", return_tensors="pt").to(device())
        written = model.generate(**padded, generation_config=config)
        found += written[:, 1 if seq2seq else padded["input_ids"].shape[1] :].tolist()
    return found


def texts(tokenizer: Any, written: Sequence[list[int]]) -> list[str]:
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


@torch.inference_mode()
def loss(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> float:
    """Mean negative log-likelihood, in nats a token, of all tokens of the rows' summaries after their prompts."""
    total, tokens = 0.0, 0
    for prompt, summary in rows:
        labels = torch.tensor([summary], device=device())
        if model.config.is_encoder_decoder:
            logits = model(input_ids=torch.tensor([prompt], device=device()), labels=labels).logits[0]
        else:
            ids = torch.tensor([prompt + summary], device=device())
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(summary) + 1).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits.float(), labels[0], reduction="sum"))
        tokens += len(summary)
    return total / tokens
