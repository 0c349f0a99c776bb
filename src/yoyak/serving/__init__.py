"""Summaries by trained models, for the terminal and a page."""
