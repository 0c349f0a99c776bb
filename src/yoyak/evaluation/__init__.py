"""Scores of summaries, how certain they are, and faults that they do not show."""
