"""What a log must not have."""

BAR = r"\r|%\||━|\dit/s|Loading weights|Map:|\x1b"
"""Of a progress bar, drawn by whichever library, or a cursor that is moved."""
