"""Checks of everything by the first stage, before any work."""
