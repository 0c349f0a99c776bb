"""Submissions to the competition, and how they scored there."""
