#!/usr/bin/env bash
# Checks and times this package on one NVIDIA GPU, in less than nine minutes:
#
#   bash benchmarks/gpu_check.sh [--output DIR] [--wheels DIR] [PART ...]
#
# What is done, and what the machine needs, stands in docs/gpu_check.md.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
  echo "error: there is no $python here; PYTHON names another one" >&2
  exit 2
fi
exec "$python" benchmarks/gpu_check.py "$@"
