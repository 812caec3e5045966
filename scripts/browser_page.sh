#!/usr/bin/env bash
# Makes a folder with a page that segments pictures in the browser by a checkpoint's network:
#   bash scripts/browser_page.sh runs/demo page && python -m http.server -d page
# Flags behind the folder go on to `python -m dasac_jax.export`. Needs npm, for onnxruntime-web.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    echo "usage: bash scripts/browser_page.sh CHECKPOINT FOLDER [--teacher] [--float16]" >&2
    exit 2
fi
command -v npm >/dev/null || { echo "npm is not installed: install Node.js" >&2; exit 2; }
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
checkpoint="$1" folder="$2"
shift 2

python -m dasac_jax.export "$checkpoint" "$folder/network.onnx" "$@"
bash "$root/scripts/onnxruntime_web.sh" "$folder"
cp "$root/docs/browser/index.html" "$folder"
