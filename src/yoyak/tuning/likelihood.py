"""Log-probabilities of tokens from hidden states, a few tokens at a time: the logits of all would be
a step's largest tensor."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 256
"""Tokens. In fp32 their logits over 152 k words take 156 MB, and the way back holds about four times as much; enough to
keep a GPU busy, for the output head has many columns."""


def log_probabilities(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of `targets` (tokens,), in fp32, each after the hidden state (tokens, hidden size) that the decoder ends with.

    No logits are kept: the way back computes them again, from the same hidden states, and so the same. For families
    whose logits are the output head's, softly capped perhaps.
    """
    parts = [
        checkpoint(_of_a_few, model, *part, use_reentrant=False)
        for part in zip(torch.split(hidden, LOGITS_AT_ONCE), torch.split(targets, LOGITS_AT_ONCE), strict=True)
    ]
    return torch.cat(parts)


def _of_a_few(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model.get_output_embeddings()(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        logits = (logits / cap).tanh() * cap
    return -cross_entropy(logits.float(), targets, reduction="none")
