#!/usr/bin/env bash
# Installs the package where needed and runs the whole recipe on two small rendered domains.
# Arguments go on to the program: bash scripts/demo.sh --config.seed=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup_env.sh

setup_env ""
exec python -m dasac_jax.main --config configs/demo.py --workdir runs/demo "$@"
