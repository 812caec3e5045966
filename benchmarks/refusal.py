"""How the benchmarks end where they cannot begin; needs nothing but Python."""

import sys
from typing import NoReturn


def refuse(message: str) -> NoReturn:
    """End with one line, as for any bad input."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
