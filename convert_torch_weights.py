"""python convert_torch_weights.py INPUT.pth FOLDER, and back: see docs/weights.md and --help."""

import sys

from dasac_jax.interop.command import main

if __name__ == "__main__":
    sys.exit(main())
