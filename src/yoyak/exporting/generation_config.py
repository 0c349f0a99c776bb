"""The exported `generation_config.json`: the search that the model's entry asks for, in `generate`'s own words."""

from typing import Any

from yoyak.inference.params import GenerationParams
from yoyak.modeling.loading import Loaded


def of(loaded: Loaded, params: GenerationParams) -> Any:
    """A `GenerationConfig`; what it cannot say is in `left_out`."""
    from transformers import GenerationConfig

    seq2seq = loaded.model.config.is_encoder_decoder
    options: dict[str, Any] = {"do_sample": params.search == "sample", "num_beams": params.num_beams}
    if params.search == "sample":
        options |= {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k}
    if params.num_beams > 1:
        options["length_penalty"] = params.length_penalty
    if params.min_new_tokens:
        options["min_new_tokens"] = params.min_new_tokens
    if seq2seq:
        # Of what a decoder reads, which is the summary alone.
        options["repetition_penalty"] = params.repetition_penalty
        options["no_repeat_ngram_size"] = params.no_repeat_ngram_size
        options["decoder_start_token_id"] = loaded.model.config.decoder_start_token_id
    return GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        eos_token_id=loaded.end_ids,
        pad_token_id=loaded.tokenizer.pad_token_id,
        bos_token_id=loaded.tokenizer.bos_token_id,
        **options,
    )


def left_out(loaded: Loaded, params: GenerationParams) -> list[str]:
    """What the pipeline's own inference does beyond the exported generation config, for a reader."""
    notes = [
        "where all candidates are empty, endless or have foreign letters, it searches a second time, less freely",
    ]
    if params.candidates > 1:
        notes.append(f"it keeps {params.candidates} candidates a dialogue, for an ensemble to choose from")
    if params.script_guard:
        notes.append("it forbids letters of scripts that the dialogue has not (`script_guard`)")
    if params.search == "diverse_beam":
        notes.append(
            f"its {params.num_beams} beams are {params.num_beam_groups} groups, with a diversity penalty of "
            f"{params.diversity_penalty:g}, which transformers 5 has no more"
        )
    if not loaded.model.config.is_encoder_decoder:
        # `generate` would hold the dialogue's own words against the summary.
        if params.repetition_penalty != 1:
            notes.append(f"a repetition penalty of {params.repetition_penalty:g}, of the summary's own tokens alone")
        if params.no_repeat_ngram_size:
            notes.append(f"no {params.no_repeat_ngram_size} tokens twice in a summary")
    if params.load_in_4bit:
        notes.append("it keeps the base weights in 4 bits")
    return notes
