"""Values of label pixels that stand for no class. Imports nothing, so that any room may use it."""

IGNORE = 255
"""Label of pixels that are neither trained on nor scored."""
