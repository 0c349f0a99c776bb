"""Families that people with one card of 24 GB fine-tune, as tiny twins; what is said of them in docs/models.md.

A twin is of the true class, with a chat template of the true shape and random weights; `test_families` holds each line
of the table to what its twin does.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import chat_templates
import torch
import twins
from chat_templates import of_trl
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM
from transformers import PreTrainedTokenizerFast as Fast
from twins import SPARE_EMBEDDINGS, TINY

HYBRID = ["sliding_attention", "full_attention"]
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
GEMMA4 = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": HYBRID * 2,
    "sliding_window": 64,
    "hidden_size_per_layer_input": 8,
    "global_head_dim": 32,
}


@dataclass(frozen=True)
class Case:
    """A line of the table."""

    family: str
    examples: str
    """Names on the hub."""
    config: Callable[..., Any]
    """From sizes and the ids of special tokens."""
    template: str | None
    special: tuple[str, ...]
    """Special tokens: begin (or none), end, then what the template has."""
    begins: bool = False
    """Whether the tokenizer begins each text with the begin token."""
    method: Literal["lora", "full"] = "lora"
    rows: Literal["packed", "one by one", ""] = "packed"
    """How they are trained."""
    decoding: Literal["ours", "transformers'", ""] = "transformers'"
    """Of `search: sample` and `greedy`."""
    refused: str = ""
    """The line of the first stage, behind the model's name."""
    remark: str = ""
    entry: dict[str, Any] = field(default_factory=dict)
    """What its entry of `models` needs beside the weights."""
    in_config: dict[str, Any] = field(default_factory=dict)
    """Keys of config.json that a repository has and the class does not know."""

    @property
    def prompt(self) -> str:
        return "dialogue" if self.method == "full" else "structured"


def of(kind: str, /, **settings: Any) -> Callable[..., Any]:
    """A configuration of transformers' class, tiny."""

    def build(**ids: Any) -> Any:
        return AutoConfig.for_model(kind, **{**TINY, **ids, **settings})

    return build


def seeing(kind: str, vision: dict[str, Any], text: dict[str, Any], **settings: Any) -> Callable[..., Any]:
    """The same of a class that sees pictures, too."""

    def build(**ids: Any) -> Any:
        return AutoConfig.for_model(kind, text_config={**TINY, **ids, **text}, vision_config=vision, **ids, **settings)

    return build


def without(kind: str, names: dict[str, Any]) -> Callable[..., Any]:
    """A configuration with names of its own for its sizes."""
    return lambda **ids: AutoConfig.for_model(kind, **ids, **names)


LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
CHATML = (None, "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]")
EXAONE = ("[BOS]", "[|endofturn|]", "[|system|]", "[|user|]", "[|assistant|]")
T5 = (None, "</s>", "<pad>", "<unk>")
QWEN35 = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
T5_SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 2}
BART_SIZES = {"d_model": 64} | {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 96}.items()
}
OLD_ROPE = {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 10000.0}

CASES = (
    Case(
        "Llama 3.1, 3.2",
        "meta-llama/Llama-3.2-3B-Instruct, beomi/Llama-3.2-Korean-3B-Instruct, Bllossom/llama-3.2-Korean-Bllossom-3B",
        of("llama", tie_word_embeddings=True),
        of_trl("llama3_2"),
        LLAMA3,
        begins=True,
        decoding="ours",
        remark="its date is fixed",
    ),
    Case(
        "Llama 3",
        "meta-llama/Meta-Llama-3-8B-Instruct, beomi/Llama-3-Open-Ko-8B-Instruct-preview",
        of("llama"),
        of_trl("llama3"),
        LLAMA3,
        begins=True,
        decoding="ours",
    ),
    Case(
        "Kanana 1.5",
        "kakaocorp/kanana-1.5-2.1b-instruct-2505, kakaocorp/kanana-1.5-8b-instruct-2505",
        of("llama"),
        of_trl("llama3_1"),
        LLAMA3,
        begins=True,
        decoding="ours",
    ),
    Case(
        "SOLAR",
        "upstage/SOLAR-10.7B-Instruct-v1.0",
        of("llama"),
        chat_templates.SOLAR,
        ("<s>", "</s>"),
        begins=True,
        decoding="ours",
        remark="nothing in its template ends an answer: `</s>` does",
    ),
    Case(
        "HyperCLOVA X SEED Text",
        "naver-hyperclovax/HyperCLOVAX-SEED-Text-Instruct-1.5B",
        of("llama"),
        chat_templates.HYPERCLOVA,
        (None, "<|endofturn|>", "<|im_start|>", "<|im_end|>"),
        decoding="ours",
    ),
    Case(
        "HyperCLOVA X SEED Think",
        "naver-hyperclovax/HyperCLOVAX-SEED-Think-14B",
        of("hyperclovax"),
        chat_templates.HYPERCLOVA,
        (None, "<|endofturn|>", "<|im_start|>", "<|im_end|>"),
    ),
    Case(
        "A.X 3.1 Light",
        "skt/A.X-3.1-Light",
        of("llama"),
        chat_templates.AX,
        (None, "<|im_end|>", "<|im_start|>", "<|system|>", "<|user|>", "<|assistant|>"),
        decoding="ours",
    ),
    Case(
        "A.X 4.0 Light",
        "skt/A.X-4.0-Light",
        of("qwen2"),
        chat_templates.AX,
        (None, "<|im_end|>", "<|im_start|>", "<|system|>", "<|user|>", "<|assistant|>"),
        decoding="ours",
    ),
    Case(
        "Qwen 2.5",
        "Qwen/Qwen2.5-3B-Instruct, Qwen/Qwen2.5-7B-Instruct",
        of("qwen2"),
        of_trl("qwen2_5"),
        CHATML,
        decoding="ours",
    ),
    Case(
        "Qwen 3",
        "Qwen/Qwen3-4B, Qwen/Qwen3-8B, Qwen/Qwen3-14B",
        of("qwen3"),
        of_trl("qwen3"),
        CHATML,
        decoding="ours",
        remark="without thinking",
    ),
    Case(
        "Qwen 3, July 2025",
        "Qwen/Qwen3-4B-Instruct-2507",
        of("qwen3"),
        of_trl("qwen3_instruct_2507"),
        CHATML,
        decoding="ours",
    ),
    Case(
        "Qwen 3.5",
        "Qwen/Qwen3.5-4B, Qwen/Qwen3.5-9B",
        seeing(
            "qwen3_5",
            {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 16,
            },
            QWEN35,
        ),
        of_trl("qwen3_5_think"),
        CHATML,
        rows="one by one",
        remark="its text part, without thinking",
    ),
    Case(
        "Gemma 2",
        "google/gemma-2-2b-it, google/gemma-2-9b-it, rtzr/ko-gemma-2-9b-it",
        of("gemma2", sliding_window=64),
        chat_templates.GEMMA2,
        GEMMA,
        begins=True,
        remark="no system role: the system text is in front of the question",
    ),
    Case(
        "Gemma 3, 1 B and smaller",
        "google/gemma-3-1b-it, google/gemma-3-270m-it",
        of("gemma3_text", sliding_window=64, layer_types=HYBRID),
        of_trl("gemma3"),
        GEMMA,
        begins=True,
        decoding="ours",
    ),
    Case(
        "Gemma 3, from 4 B",
        "google/gemma-3-4b-it, google/gemma-3-12b-it",
        seeing(
            "gemma3",
            {**VISION, "image_size": 28, "patch_size": 14},
            {"sliding_window": 64, "layer_types": HYBRID},
            mm_tokens_per_image=4,
        ),
        of_trl("gemma3"),
        GEMMA,
        begins=True,
    ),
    Case(
        "Gemma 3n",
        "google/gemma-3n-E2B-it, google/gemma-3n-E4B-it",
        of(
            "gemma3n_text",
            num_hidden_layers=4,
            num_kv_shared_layers=2,
            layer_types=HYBRID * 2,
            sliding_window=64,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=twins.VOCABULARY,
            laurel_rank=4,
            activation_sparsity_pattern=[0.0] * 4,
            altup_num_inputs=2,
        ),
        of_trl("gemma3"),
        GEMMA,
        begins=True,
    ),
    Case(
        "Gemma 4",
        "google/gemma-4-E2B-it, google/gemma-4-E4B-it",
        seeing(
            "gemma4",
            {**VISION, "head_dim": 16, "global_head_dim": 16, "num_key_value_heads": 2, "patch_size": 14},
            GEMMA4 | {"vocab_size_per_layer_input": twins.VOCABULARY},
            audio_config=None,
        ),
        of_trl("gemma4"),
        ("<bos>", "<eos>", "<|turn>", "<turn|>", "<pad>", "<|channel>", "<channel|>"),
        begins=True,
    ),
    Case(
        "EXAONE 3.5",
        "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct, LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct",
        of("llama"),
        chat_templates.EXAONE,
        EXAONE,
        in_config={"model_type": "exaone", "auto_map": {"AutoConfig": "configuration_exaone.ExaoneConfig"}},
        refused="config.json has model_type 'exaone', which transformers does not know, and code of its own (auto_map)",
    ),
    Case(
        "EXAONE 4",
        "LGAI-EXAONE/EXAONE-4.0-1.2B",
        of("exaone4", sliding_window=64, layer_types=HYBRID),
        chat_templates.EXAONE4,
        EXAONE,
        remark="without thinking",
    ),
    Case(
        "Mistral 7B, first",
        "mistralai/Mistral-7B-Instruct-v0.1, mistralai/Mistral-7B-Instruct-v0.2",
        of("mistral", sliding_window=64),
        chat_templates.MISTRAL1,
        MISTRAL,
        begins=True,
        remark="no system role: the system text is in front of the question",
    ),
    Case(
        "Mistral 7B, Nemo",
        "mistralai/Mistral-7B-Instruct-v0.3, mistralai/Mistral-Nemo-Instruct-2407",
        of("mistral", sliding_window=None),
        chat_templates.MISTRAL3,
        MISTRAL,
        begins=True,
    ),
    Case(
        "Ministral 3",
        "mistralai/Ministral-3-3B-Instruct-2512, mistralai/Ministral-3-8B-Instruct-2512",
        of("ministral3"),
        chat_templates.MISTRAL3,
        MISTRAL,
        in_config={"model_type": "mistral3"},
        refused="config.json has model_type: mistral3, which is no model of texts alone; name a model that writes",
    ),
    Case(
        "Phi 3.5, Phi-4-mini",
        "microsoft/Phi-3.5-mini-instruct, microsoft/Phi-4-mini-instruct",
        of("phi3"),
        of_trl("phi3_5"),
        ("<s>", "<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        in_config={"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, **OLD_ROPE, "rope_scaling": None},
    ),
    Case(
        "Phi-4",
        "microsoft/phi-4",
        of("phi3"),
        chat_templates.PHI4,
        ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>"),
    ),
    Case(
        "SmolLM 2",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        of("llama", tie_word_embeddings=True),
        chat_templates.CHATML,
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        decoding="ours",
    ),
    Case(
        "SmolLM 3",
        "HuggingFaceTB/SmolLM3-3B",
        of("smollm3"),
        chat_templates.CHATML,
        CHATML,
        in_config={"rope_theta": 5000000.0, "rope_scaling": None},
    ),
    Case(
        "gpt-oss",
        "openai/gpt-oss-20b",
        of("gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=64, layer_types=HYBRID),
        of_trl("gptoss"),
        ("<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        in_config={"quantization_config": {"quant_method": "mxfp4"}},
        refused="its weights are quantised already (config.json: quantization_config: mxfp4)",
    ),
    Case(
        "gpt-oss, in 16 bits",
        "unsloth/gpt-oss-20b-BF16",
        of("gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=64, layer_types=HYBRID),
        of_trl("gptoss"),
        ("<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        rows="one by one",
        remark="its experts stay in 16 bits: 40 GB",
    ),
    Case(
        "LFM 2",
        "LiquidAI/LFM2-1.2B, LiquidAI/LFM2-2.6B",
        of("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
        of_trl("lfm2"),
        ("<|startoftext|>", "<|im_end|>", "<|im_start|>", "<|tool_list_start|>", "<|tool_list_end|>"),
        rows="one by one",
    ),
    Case(
        "GLM-4",
        "zai-org/glm-4-9b-chat-hf",
        of("glm"),
        chat_templates.GLM4,
        (None, "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        remark="nothing in its template ends an answer: `<|endoftext|>` does",
    ),
    Case(
        "GLM-4, April 2025",
        "zai-org/GLM-4-9B-0414",
        of("glm4"),
        chat_templates.GLM4,
        (None, "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    Case(
        "Falcon 3",
        "tiiuae/Falcon3-7B-Instruct",
        of("llama"),
        chat_templates.GLM4.replace("[gMASK]<sop>", ""),
        (None, "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"),
        decoding="ours",
    ),
    Case(
        "Falcon H1",
        "tiiuae/Falcon-H1-3B-Instruct",
        of("falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=16),
        chat_templates.CHATML,
        (None, "<|im_end|>", "<|im_start|>"),
        rows="one by one",
    ),
    Case(
        "Granite 3",
        "ibm-granite/granite-3.3-8b-instruct",
        of("granite"),
        chat_templates.CHATML,
        (None, "<|im_end|>", "<|im_start|>"),
    ),
    Case(
        "Granite 4",
        "ibm-granite/granite-4.0-h-micro",
        of(
            "granitemoehybrid",
            layer_types=["mamba", "attention"],
            num_local_experts=0,
            shared_intermediate_size=96,
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=16,
        ),
        chat_templates.CHATML,
        (None, "<|im_end|>", "<|im_start|>"),
        rows="one by one",
    ),
    Case(
        "Command R7B",
        "CohereLabs/c4ai-command-r7b-12-2024",
        of("cohere2", sliding_window=64),
        of_trl("cohere2"),
        ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        begins=True,
    ),
    Case(
        "OLMo 2",
        "allenai/OLMo-2-1124-7B-Instruct",
        of("olmo2"),
        chat_templates.CHATML,
        (None, "<|im_end|>", "<|im_start|>"),
    ),
    Case(
        "DeepSeek R1 Distill",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        of("qwen2"),
        of_trl("deepseek_r1_distill"),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        begins=True,
        decoding="ours",
        remark="a summary stands where it begins to think",
    ),
    Case(
        "Polyglot-Ko",
        "EleutherAI/polyglot-ko-5.8b",
        of("gpt_neox"),
        None,
        (None, "<|endoftext|>"),
        remark="no template: `[Answer]` is in front of a summary",
    ),
    Case(
        "KoGPT2",
        "skt/kogpt2-base-v2",
        without("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}),
        None,
        (None, "</s>", "<pad>"),
        entry={"max_prompt_tokens": 512},
        remark="1,024 positions: `max_prompt_tokens: 512`",
    ),
    Case(
        "Quantised checkpoints",
        "Qwen/Qwen2.5-7B-Instruct-AWQ, unsloth/Llama-3.2-3B-Instruct-bnb-4bit",
        of("qwen2"),
        of_trl("qwen2_5"),
        CHATML,
        in_config={"quantization_config": {"quant_method": "awq", "bits": 4}},
        refused="its weights are quantised already (config.json: quantization_config: awq)",
    ),
    Case(
        "Models that see",
        "Qwen/Qwen2.5-VL-7B-Instruct, Qwen/Qwen3-VL-4B-Instruct",
        of("qwen2"),
        of_trl("qwen2_5"),
        CHATML,
        in_config={"model_type": "qwen2_5_vl"},
        refused="config.json has model_type: qwen2_5_vl, which is no model of texts alone; name a model that writes",
    ),
    Case(
        "Encoders",
        "klue/roberta-base, monologg/koelectra-base-v3-discriminator",
        without("roberta", {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}),
        None,
        ("<s>", "</s>", "<pad>"),
        refused="config.json has model_type: roberta, which only fills gaps in a text; name a model that writes",
    ),
    Case(
        "KoBART",
        "gogamza/kobart-base-v2, gogamza/kobart-summarization",
        without("bart", {**BART_SIZES, "decoder_start_token_id": 1}),
        None,
        ("<s>", "</s>", "<pad>", "<unk>"),
        method="full",
        rows="",
    ),
    Case(
        "pko-T5, KoT5",
        "paust/pko-t5-base, psyche/KoT5-summarization",
        without("t5", T5_SIZES),
        None,
        T5,
        method="full",
        rows="",
    ),
    Case(
        "mT5",
        "google/mt5-base, csebuetnlp/mT5_multilingual_XLSum",
        without("mt5", T5_SIZES | {"feed_forward_proj": "gated-gelu"}),
        None,
        T5,
        method="full",
        rows="",
    ),
    Case(
        "mBART",
        "facebook/mbart-large-50",
        without("mbart", {**BART_SIZES, "decoder_start_token_id": 1}),
        None,
        ("<s>", "</s>", "<pad>", "<unk>", "ko_KR"),
        method="full",
        rows="",
    ),
    Case(
        "LED",
        "allenai/led-base-16384",
        without("led", {**BART_SIZES, "decoder_start_token_id": 1, "attention_window": 64}),
        None,
        ("<s>", "</s>", "<pad>", "<unk>"),
        method="full",
        rows="",
    ),
)


def save(case: Case, folder: Path) -> Path:
    """Write a case's twin, with seeded random weights."""
    tokenizer = tokenizer_of(case)
    names = ("bos", "eos", "pad")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    config = case.config(vocab_size=len(tokenizer) + SPARE_EMBEDDINGS, **ids)
    kind: Any = AutoModelForCausalLM
    if config.is_encoder_decoder:
        kind = AutoModelForSeq2SeqLM
    elif hasattr(config, "vision_config"):
        kind = AutoModelForImageTextToText
    torch.manual_seed(0)
    kind.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if case.in_config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | case.in_config))
    return folder


def tokenizer_of(case: Case) -> Fast:
    begin, end, *others = case.special
    roles = {"bos_token": begin} if begin else {}
    if "<pad>" in others:
        roles["pad_token"] = "<pad>"
    return Fast(
        tokenizer_object=Tokenizer.from_str(
            _learned(tuple(filter(None, case.special)), begin if case.begins else None)
        ),
        eos_token=end,
        chat_template=case.template,
        **roles,
    )


@cache
def _learned(special: tuple[str, ...], begin: str | None) -> str:
    return twins.byte_level(list(special), begin=begin).to_str()
