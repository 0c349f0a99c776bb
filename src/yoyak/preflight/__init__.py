"""The first stage's look at everything, before any work."""
