"""Summaries with their log-probabilities."""
