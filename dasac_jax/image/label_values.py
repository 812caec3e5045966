"""The value of label pixels that stand for no class. Importing it imports nothing else."""

IGNORE = 255
"""Label of pixels that are neither trained on nor scored."""
