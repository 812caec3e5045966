"""python scripts/build_tfds.py {cityscapes,gta5,synthia} [--root data] [--output data/tfds] …"""

import sys

from dasac_jax.data.preparation.build_tfds import main

if __name__ == "__main__":
    sys.exit(main())
