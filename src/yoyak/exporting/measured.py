"""An export in the making: it is written, and each step measured against the one before."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig

from yoyak.core import environment, gpu, progress, repository
from yoyak.core.limits import check_disk
from yoyak.core.records import Prompt, read_records
from yoyak.exporting import folder, generation_config, gguf_file, parity, trained
from yoyak.exporting.conversation import Conversation
from yoyak.exporting.gguf_file import Quantized
from yoyak.exporting.parity import Judge, Measured
from yoyak.exporting.trained import Trained
from yoyak.modeling import precision
from yoyak.modeling.precision import TORCH_DTYPES
from yoyak.modeling.spec import DType
from yoyak.preflight.params import Params

Kind = Literal["adapter", "hf", "gguf"]


class Export:
    """The folder `half`, which is filled; what was measured on the way, and what is to be said of it."""

    def __init__(
        self, params: Params, found: Trained, kind: Kind, half: Path, rows: int, quantized: Quantized | None
    ) -> None:
        """`rows`: of dev that are compared; 0: all."""
        self.found, self.half, self.kind, self._quantized = found, half, kind, quantized
        self.name, self._dtype = found.name, TORCH_DTYPES[found.spec.dtype]
        self._most = found.config.generation.max_new_tokens
        self.measured: dict[str, Measured] = {}
        self.checks: list[str] = []
        with progress.timed(f"{self.name}: loading it in fp32"):
            loaded = trained.load(found, "fp32")
        self.seq2seq = bool(loaded.model.config.is_encoder_decoder)
        self.conversation = Conversation(loaded.prompt_tokenizer, self.seq2seq)
        self.differences = generation_config.left_out(loaded, found.config.generation)
        self._rows = parity.read_rows(loaded, read_records(Path("data/prompts/dev.jsonl"), Prompt), rows)
        self._judge = Judge(self._rows, params.scoring)
        self._at_once = parity.together(loaded)
        copies = 3 if kind == "gguf" else 1
        gigabytes = sum(weight.numel() for weight in loaded.model.parameters()) * self._dtype.itemsize / 1e9
        if kind != "adapter":
            check_disk(params.limits, copies * gigabytes, f"the export of {self.name}")
        self._learned = self._of_pipeline(loaded, "as trained, in fp32")
        self._write(loaded)

    @property
    def report(self) -> dict[str, Any]:
        """`parity.json`."""
        left_out = {
            "lose turns to max_prompt_tokens": self._rows.shortened,
            "hold texts of control tokens": self._rows.steering,
        }
        notes = [f"{number} rows were left out: they {why}" for why, number in left_out.items() if number]
        return {
            "rows": len(self._rows.rows),
            "left_out": left_out,
            "checks": self.checks + notes,
            "models": [
                {"what": what, "loss": round(each.loss, 5), **self._judge.entry(each.texts)}
                for what, each in self.measured.items()
            ],
            "ran": environment.describe(),
            "commit": repository.commit(),
        }

    def _of_pipeline(self, loaded: Any, what: str) -> Measured:
        self.measured[what] = parity.of_pipeline(loaded, self.found.config, self._rows, f"{self.name}, {what}")
        return self.measured[what]

    def _write(self, loaded: Any) -> None:
        merged = self._learned
        if self.kind == "adapter":
            folder.write_adapter(self.half, self.found)
        else:
            weights = trained.weights(self.found)
            folder.write_weights(self.half, weights)
        folder.write_around(self.half, loaded, self.conversation, self.found.config.generation)
        if self.kind != "adapter" and self._dtype != torch.float32:
            _take(loaded.model, weights)
            merged = self._of_pipeline(loaded, f"rounded to {self.found.spec.dtype}, computed in fp32")
            self.checks.append(f"what rounding costs: {self._difference(merged, self._learned)}")
        del loaded
        gpu.release_memory()
        if self.kind == "gguf":
            self._make_gguf(merged)
        else:
            self._check_in_fp32(merged)
            self._check_in_16_bits()

    def _check_in_fp32(self, pipeline: Measured) -> None:
        exported = self._of_folder("fp32")
        share = parity.check_texts(self.name, pipeline.texts, exported.texts)
        self.checks.append(f"{parity.percent(share)} of the greedy summaries in fp32 are the pipeline's to the letter")

    def _check_in_16_bits(self) -> None:
        """ROUGE of pipeline and export, both by `generate`."""
        asked = self.found.spec.dtype
        if asked == "fp32":
            self.checks.append("its weights have 32 bits, and are computed in them")
            return
        chosen = precision.choose(asked)
        if chosen.dtype != asked:
            self.checks.append(f"not compared in {asked}: {chosen.why}")
            return
        what = f"the pipeline's, in {asked}"
        with progress.timed(f"{self.name}: {len(self._rows.rows)} summaries, {what}"):
            loaded = trained.load(self.found, asked)
            loaded.model.generation_config = generation_config.of(loaded, self.found.config.generation)
            pipeline = parity.of_plain(
                loaded.model, loaded.tokenizer, self._rows, self.conversation, self._most, self._at_once
            )
        self.measured[what] = pipeline
        del loaded
        gpu.release_memory()
        exported = self._of_folder(asked)
        parity.check_rouge(self.name, self._judge.delta(exported.texts, pipeline.texts), f"in {asked}")
        self.checks.append(f"exported against the pipeline's, in {asked}: {self._difference(exported, pipeline)}")

    def _of_folder(self, dtype: DType) -> Measured:
        what = f"exported, in {dtype}"
        with progress.timed(f"{self.name}: {len(self._rows.rows)} summaries, {what}"):
            self.measured[what] = parity.of_folder(
                self.half, TORCH_DTYPES[dtype], self._rows, self.conversation, self._most, self._at_once
            )
        gpu.release_memory()
        return self.measured[what]

    def _make_gguf(self, merged: Measured) -> None:
        """From the weights just written, which go when it is there."""
        kind = self._quantized or gguf_file.NAMES[self.found.spec.dtype]
        file = self.half / f"{self.name}-{kind}.gguf"
        gguf_file.convert(self.half, file, kind)
        config = AutoConfig.from_pretrained(self.half)
        folder.remove_weights(self.half)
        made = parity.of_gguf(file, config, self._rows, self.conversation, self._most, f"{self.name}, {kind}")
        self.measured[f"the GGUF, {kind}: loss in fp32, summaries by llama.cpp"] = made
        if self._quantized:
            self.checks.append(f"what quantising costs: {self._difference(made, merged)}")
        else:
            parity.check_loss(self.name, made.loss - merged.loss)
            self.checks.append(f"the GGUF against what was converted: {self._difference(made, merged)}")
        if kind == "f32":
            parity.check_texts(self.name, merged.texts, made.texts)
        parity.check_rouge(self.name, self._judge.delta(made.texts, merged.texts), "by llama.cpp")

    def _difference(self, one: Measured, than: Measured) -> str:
        delta = self._judge.delta(one.texts, than.texts)
        low, high = delta["ci95"]
        return (
            f"{one.loss - than.loss:+.4f} nats a token, ROUGE {delta['rouge_mean']:+.2f} [{low}, {high}], "
            f"{parity.percent(parity.equal(one.texts, than.texts))} of the summaries the same"
        )


@torch.no_grad()
def _take(model: Any, weights: Any) -> None:
    """The values of another model's weights. To convert `model` itself to 16 bits and back would round its frequencies
    of positions and Gemma's scale of embeddings, too, which no file has and each load makes anew."""
    rounded = weights.state_dict()
    for name, weight in model.state_dict().items():
        weight.copy_(rounded[name])
