"""Whether an exported folder is the same model in vLLM: tokens of prompts, and greedy summaries beside `generate`'s.

    python benchmarks/export_vllm.py expect gemma3_270m expected.json [ROWS]    here, after `yoyak export … --to hf`
    python export_vllm.py check export/gemma3_270m-hf expected.json             where vLLM is; it needs nothing of here

In 16 bits two engines round differently: summaries that differ are counted, and no limit is set. Prompts must be equal.
"""

import json
import sys
from pathlib import Path
from typing import Any


def expect(name: str, target: str, rows: str = "50") -> None:
    """Messages, tokens and summaries of the first rows of dev, by transformers from the exported folder."""
    from yoyak.core.params import PARAMS
    from yoyak.core.records import Prompt, read_records
    from yoyak.exporting import plain, trained
    from yoyak.exporting.conversation import Conversation
    from yoyak.modeling import weights
    from yoyak.modeling.loading import read_tokenizer
    from yoyak.modeling.precision import TORCH_DTYPES
    from yoyak.modeling.tokenization import PromptTokenizer
    from yoyak.preflight.check import read_params

    found = trained.find(read_params(PARAMS), name)
    spec = found.spec
    own = read_tokenizer(found.folders[0], weights.fetch(spec.weights, spec.pin))
    asks = Conversation(PromptTokenizer(own, spec.prompt, spec.max_prompt_tokens, spec.persons), seq2seq=False)
    model, tokenizer = plain.load(Path(f"export/{name}-hf"), TORCH_DTYPES[spec.dtype])
    asked = [asks.asked(row) for row in read_records(Path("data/prompts/dev.jsonl"), Prompt)[: int(rows)]]
    ids = [plain.prompt_ids(tokenizer, messages) for messages in asked]
    most = model.generation_config.max_new_tokens
    texts = plain.texts(tokenizer, plain.greedy(model, tokenizer, ids, most))
    content = {"dtype": spec.dtype, "max_new_tokens": most, "asked": asked, "ids": ids, "texts": texts}
    Path(target).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def check(folder: str, expected: str) -> None:
    import vllm

    content: dict[str, Any] = json.loads(Path(expected).read_text(encoding="utf-8"))
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[content["dtype"]]
    model = vllm.LLM(folder, dtype=dtype, max_model_len=2048)
    greedily = vllm.SamplingParams(temperature=0, max_tokens=content["max_new_tokens"])
    outputs = model.chat(content["asked"], greedily)
    wrong = sum(list(output.prompt_token_ids) != ids for output, ids in zip(outputs, content["ids"], strict=True))
    texts = [output.outputs[0].text.strip() for output in outputs]
    same = sum(text == other for text, other in zip(texts, content["texts"], strict=True))
    print(f"vLLM {vllm.__version__}, {dtype}, {len(texts)} rows: {wrong} other prompts, {same} equal summaries")
    sys.exit(f"error: {wrong} prompts have other tokens" if wrong else 0)


if __name__ == "__main__":
    {"expect": expect, "check": check}[sys.argv[1]](*sys.argv[2:])
