# Sourced by the scripts beside it, from the repository root. `setup_env EXTRAS` makes `python`
# a Python with this package and the named extras ("test,torch" or ""), installing only what
# changed: into the active virtual environment, or else into .venv, which it makes.

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        # A name on the PATH may be a shim for a version that is not there: it has to run.
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

setup_env() {
    local extras="$1" python folder stamp wanted
    if [[ -n "${VIRTUAL_ENV:-}" ]]; then
        folder="$VIRTUAL_ENV"
    else
        folder="$PWD/.venv"
        if ! "$folder/bin/python" -c 'import pip' >/dev/null 2>&1; then
            if ! python="$(find_python)"; then
                echo "No Python 3.11 or newer (with venv) found: install one or activate a virtual environment." >&2
                exit 2
            fi
            echo "Making a virtual environment in .venv with $("$python" --version)"
            "$python" -m venv --clear "$folder"
        fi
        export VIRTUAL_ENV="$folder"
    fi
    export PATH="$folder/bin:$PATH"
    stamp="$folder/.dasac-jax-installed${extras:+-${extras//,/-}}"
    wanted="$PWD ${PIP_CONSTRAINT:-} $(cksum <setup.py)"
    if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
        echo "Installing dasac-jax${extras:+ with extras $extras} into $folder"
        python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
        echo "$wanted" >"$stamp"
    fi
}
