"""Trained models, asked for summaries."""
