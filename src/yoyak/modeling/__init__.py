"""From a model's name to the model in memory."""
