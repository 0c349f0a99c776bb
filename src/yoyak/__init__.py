"""yoyak (요약, "summary"): fine-tune, score and ensemble summarisers of Korean dialogues."""
