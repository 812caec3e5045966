"""python scripts/download.py [NAME … | list | all] [--output FOLDER] [--convert] …"""

import sys

from dasac_jax.interop.downloads.download import main

if __name__ == "__main__":
    sys.exit(main())
