"""How likely a model finds what others have written."""
