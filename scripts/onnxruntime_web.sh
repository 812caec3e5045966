#!/usr/bin/env bash
# Puts the three files of onnxruntime-web that docs/browser/index.html loads into a folder, 14 MB.
# npm compares the package with the registry's checksum.
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: bash scripts/onnxruntime_web.sh FOLDER" >&2
    exit 2
fi
command -v npm >/dev/null || { echo "npm is not installed: install Node.js" >&2; exit 2; }
folder="$(mkdir -p "$1" && cd "$1" && pwd)"
package="$(mktemp -d)"
trap 'rm -rf "$package"' EXIT
cd "$package"
npm pack --silent onnxruntime-web@1.30.0 >/dev/null
tar -xzf onnxruntime-web-*.tgz
cp package/dist/{ort.wasm.min.js,ort-wasm-simd-threaded.mjs,ort-wasm-simd-threaded.wasm} "$folder"
