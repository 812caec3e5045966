"""python scripts/prepare_data.py {own FLAGS, {cityscapes,gta5,synthia,camvid} SOURCE …, check}"""

import sys

from dasac_jax.own_data.command import main

if __name__ == "__main__":
    sys.exit(main())
