"""One summary a row from several models."""
