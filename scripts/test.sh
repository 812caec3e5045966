#!/usr/bin/env bash
# Installs what the tests need and runs the style checks and every test. Arguments go on to pytest.
# DASAC_TEST_EXTRAS=torch adds the comparisons with PyTorch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup_env.sh

setup_env "test${DASAC_TEST_EXTRAS:+,$DASAC_TEST_EXTRAS}"
if [[ "${DASAC_TEST_EXTRAS:-}" == *torch* ]] && ! python -c 'from importlib.metadata import version; version("timm")' 2>/dev/null; then
    # Without torchvision, which timm asks for: its published builds do not load beside a PyTorch for
    # CPUs. What else timm needs has come with transformers.
    python -m pip install --quiet --disable-pip-version-check --no-deps timm
fi
ruff check .
ruff format --check .
# Some tests wait for other processes: three workers keep two cores busy.
workers="$(python -c 'import os; print(min(8, max(3, os.cpu_count() or 3)))')"
# A file's tests share what they compile: they stay with one worker.
exec python -m pytest -n "$workers" --dist loadfile --no-loadscope-reorder "$@"
