"""A GGUF file as llama.cpp's users have it: its own tokenizer, its own chat templates, its own search."""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yoyak.core.progress import Reporter
from yoyak.exporting.conversation import Asked


class LlamaCpp:
    """llama.cpp's server in this process, on 127.0.0.1, with one file."""

    def __init__(self, file: Path, context: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context
        params.n_parallel = 1
        params.cpuparams.n_threads = torch.get_num_threads()
        params.use_jinja = True
        params.port = 0
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def prompt_ids(self, asked: Asked) -> list[int]:
        prompt = self._post("apply-template", messages=asked)["prompt"]
        tokens = self._post("tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
        return [int(token) for token in tokens]

    def greedy(self, prompts: Sequence[list[int]], max_new_tokens: int, title: str) -> list[str]:
        """Summaries, always of the likeliest token."""
        texts = []
        with Reporter(title, "summaries") as reporter:
            reporter.begin(0, len(prompts))
            for number, ids in enumerate(prompts, start=1):
                written = self._post("completion", prompt=ids, n_predict=max_new_tokens, temperature=0, top_k=1)
                texts.append(str(written["content"]).strip())
                reporter.show(number, "llama.cpp", f"{number} of {len(prompts)} summaries by llama.cpp")
            reporter.end(len(prompts), "by llama.cpp")
        return texts

    def _post(self, what: str, **asked: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._server.listening_address}/{what}",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            content = json.load(answer)
        assert isinstance(content, dict)
        return content
