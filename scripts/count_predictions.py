"""python scripts/count_predictions.py FOLDER RUN/weights.tsv"""

import sys

from dasac_jax.data.preparation.count_predictions import main

if __name__ == "__main__":
    sys.exit(main())
