"""The one thing that the package takes from JAX's private parts is there and works."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]

# One process that is connected to itself alone: JAX keeps the store all the same.
PROGRAM = """
import sys
import jax
from dasac_jax.runtime import key_value_store as store

jax.distributed.initialize(sys.argv[1], 1, 0)
assert store.coordinator() == sys.argv[1]
store.put("a/1", "one")
store.put("a/2", "two")
store.put("a/2", "three", replace=True)
assert store.wait_for("a/1") == "one"
assert store.entries("a/") == {"a/1": "one", "a/2": "three"}
assert store.entries("b/") == {}
store.barrier("end")
try:
    store.put("a/1", "two")
except jax.errors.JaxRuntimeError:
    print("refused")
"""


def test_jax_still_has_what_the_store_is_made_of():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"localhost:{port}"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "refused\n"), (
        f"JAX {jax.__version__} differs from what runtime/key_value_store.py needs of "
        f"jax._src.distributed.global_state: {ended.stderr}"
    )


def test_no_other_module_uses_jax_s_private_parts():
    paths = [*(ROOT / "dasac_jax").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    importing = re.compile(r"^\s*(from|import) jax\._src", re.MULTILINE)
    users = [path.name for path in paths if importing.search(path.read_text(encoding="utf-8"))]
    assert users == ["key_value_store.py"]
