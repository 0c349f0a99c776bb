"""Tiny twins of the eight models: the same classes, the same kind of tokenizer, that family's chat template.

A twin is a folder as `save_pretrained` leaves it, with random weights; an entry of `models` names it as its `weights`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    FalconH1Config,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteMoeConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    LlamaConfig,
    MBartConfig,
    MT5Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3NextConfig,
    RwkvConfig,
    T5Config,
)

from yoyak.data.dialogues import read_dialogues

SAMPLE = Path(__file__).parents[2] / "data/sample"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
VOCABULARY = 2000
SPARE_EMBEDDINGS = 16
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def byte_level(special: list[str], begin: str | None = None, end: str | None = None) -> Tokenizer:
    """Llama-3's, Qwen's and pko-t5's kind: BPE over bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    return _learn(tokenizer, trainer, begin, end)


def byte_fallback(special: list[str], begin: str) -> Tokenizer:
    """Gemma's kind: BPE over characters, blanks as `▁`, bytes for what the vocabulary lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    learned = _learn(tokenizer, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special), begin, None)
    # Bytes are no special tokens: decoding keeps them.
    content = json.loads(learned.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(content))


def characters(special: list[str]) -> Tokenizer:
    """koBART's kind: BPE over characters, pieces that begin with `▁`, nothing put round a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _learn(tokenizer, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special), None, None)


def _learn(tokenizer: Tokenizer, trainer: Any, begin: str | None, end: str | None) -> Tokenizer:
    rows = read_dialogues(SAMPLE / "train.csv", with_summary=True)
    tokenizer.train_from_iterator([text for row in rows for text in (row.dialogue, *row.summaries)], trainer)
    around = [token for token in (begin, end) if token]
    if around:
        template = " ".join(filter(None, [begin, "$A", end]))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in around]
        )
    return tokenizer


def llama32() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    tokenizer = _llama_tokenizer("llama3_2", end="<|eot_id|>")
    return LlamaConfig(**TINY, **_ids(tokenizer), tie_word_embeddings=True), tokenizer


def llama3() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """Llama 3's first 8 B: its own output head, and an end token that is not the template's end of turn."""
    tokenizer = _llama_tokenizer("llama3", end="<|end_of_text|>")
    return LlamaConfig(**TINY, **_ids(tokenizer), tie_word_embeddings=False), tokenizer


def _llama_tokenizer(template: str, end: str) -> PreTrainedTokenizerFast:
    """No pad token, as the real one."""
    header = ["<|start_header_id|>", "<|end_header_id|>"]
    special = ["<|begin_of_text|>", "<|end_of_text|>", *header, "<|eot_id|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(special, begin="<|begin_of_text|>"),
        bos_token="<|begin_of_text|>",
        eos_token=end,
        chat_template=_template(template),
    )


def qwen25() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    tokenizer = _qwen_tokenizer("qwen2_5")
    return Qwen2Config(**TINY, **_ids(tokenizer), tie_word_embeddings=True), tokenizer


def qwen3() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    return Qwen3Config(**TINY, **_ids(tokenizer), tie_word_embeddings=True), tokenizer


def qwen3_thinking() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As Qwen/Qwen3-4B: a template that lets the model think unless told otherwise."""
    tokenizer = _qwen_tokenizer("qwen3")
    return Qwen3Config(**TINY, **_ids(tokenizer), tie_word_embeddings=True), tokenizer


def _qwen_tokenizer(template: str) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(special),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_template(template),
    )


def gemma3() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As google/gemma-3-*-it: with a chat template whose end of turn is not the tokenizer's end token."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_fallback(special, begin="<bos>"),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=_template("gemma3"),
    )
    layers = ["sliding_attention", "full_attention"]
    return Gemma3TextConfig(**TINY, **_ids(tokenizer), sliding_window=64, layer_types=layers), tokenizer


def gemma3_base() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As google/gemma-3-*: no chat template."""
    config, tokenizer = gemma3()
    tokenizer.chat_template = None
    return config, tokenizer


def qwen35() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As Qwen/Qwen3.5-*: gated delta nets beside attention."""
    tokenizer = _qwen_tokenizer("qwen3")
    return Qwen3_5TextConfig(**TINY, **_ids(tokenizer), **_DELTA_NET), tokenizer


def qwen3_next() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """The same, and experts."""
    tokenizer = _qwen_tokenizer("qwen3")
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    return Qwen3NextConfig(**TINY, **_ids(tokenizer), **_DELTA_NET, **experts), tokenizer


_DELTA_NET = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "tie_word_embeddings": True,
}


def lfm2() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As LiquidAI/LFM2-*: short convolutions beside attention."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    return Lfm2Config(**TINY, **_ids(tokenizer), layer_types=["conv", "full_attention"]), tokenizer


def falcon_h1() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As tiiuae/Falcon-H1-*: Mamba and attention side by side."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    mamba = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
    return FalconH1Config(**TINY, **_ids(tokenizer), **mamba), tokenizer


def granite_hybrid() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As ibm-granite/granite-4.0-h-*: Mamba or attention, and experts."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    mamba = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_chunk_size": 16}
    layers = {
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    }
    return GraniteMoeHybridConfig(**TINY, **_ids(tokenizer), **mamba, **layers), tokenizer


def granite_experts() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """Attention and experts, which get other tokens when a row has other neighbours."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    return GraniteMoeConfig(**TINY, **_ids(tokenizer), num_local_experts=4, num_experts_per_tok=2), tokenizer


def gpt_oss() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """Attention alone, but transformers 5.23 builds its mask without position ids."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    return GptOssConfig(
        **TINY, **_ids(tokenizer), num_local_experts=4, num_experts_per_tok=2, sliding_window=64
    ), tokenizer


def rwkv() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """A state alone, and no attention mask: padding is read as text."""
    tokenizer = _qwen_tokenizer("qwen3_instruct_2507")
    return RwkvConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, **_ids(tokenizer)), tokenizer


def bart() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters(["<s>", "</s>", "<unk>", "<pad>"]),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    layers = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in _BART_LAYERS.items()}
    start = tokenizer.eos_token_id
    return BartConfig(**layers, **_ids(tokenizer), d_model=64, decoder_start_token_id=start), tokenizer


def mbart() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    """As facebook/mbart-large-cc25: a decoder begins with a language's token, which ends its labels."""
    _, tokenizer = bart()
    layers = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in _BART_LAYERS.items()}
    start = tokenizer.unk_token_id
    return MBartConfig(**layers, **_ids(tokenizer), d_model=64, decoder_start_token_id=start), tokenizer


_BART_LAYERS = {"layers": 2, "attention_heads": 4, "ffn_dim": 96}


class T5TokenizerFast(PreTrainedTokenizerFast):
    """As paust/pko-t5-base names its own: T5's class, which holds unigram models, round a BPE over bytes."""


def t5() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    tokenizer = T5TokenizerFast(
        tokenizer_object=byte_level(["<pad>", "</s>", "<unk>"], end="</s>"),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    config = T5Config(
        **_ids(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return config, tokenizer


def mt5() -> tuple[PretrainedConfig, PreTrainedTokenizerFast]:
    config, tokenizer = t5()
    return MT5Config(**{key: value for key, value in config.to_dict().items() if key != "model_type"}), tokenizer


Family = Callable[[], tuple[PretrainedConfig, PreTrainedTokenizerFast]]

FAMILIES: dict[str, Family] = {
    "kobart": bart,
    "kot5": t5,
    "llama32_3b": llama32,
    "llama32_3b_fp16": llama32,
    "qwen3_4b": qwen3,
    "qwen25_3b": qwen25,
    "qwen25_7b": qwen25,
    "qwen25_coder_05b": qwen25,
    "qwen25_coder_15b": qwen25,
    "llama3_8b": llama3,
    "gemma3_270m": gemma3_base,
}
"""The twin of each entry of `params.yaml` that has pretrained weights."""


def save_twin(family: Family, folder: Path) -> Path:
    """Write a twin with seeded random weights."""
    config, tokenizer = family()
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """More embeddings than tokens, as Qwen and T5 have them."""
    names = ("bos", "eos", "pad")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    return {"vocab_size": len(tokenizer) + SPARE_EMBEDDINGS} | ids


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()
