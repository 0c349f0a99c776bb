"""From CSV or JSONL to cleaned dialogues, and from these to prompts."""
