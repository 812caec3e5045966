"""python scripts/prepare_data.py {cityscapes,gta5,synthia} SOURCE [--root data] … | check"""

import sys

from dasac_jax.data.preparation.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
