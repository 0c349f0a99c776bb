"""yoyak (요약, "summary"): fine-tune, score and ensemble summarisers of Korean dialogues."""

import os

# TRL tells the Hugging Face Hub which trainer is used where; whoever trains with yoyak did not agree to that.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
