"""Memory that was freed stays with the process, or goes back."""

import os
import subprocess
import sys
from pathlib import Path

from dasac_jax.runtime import malloc

ROOT = Path(__file__).parents[2]

# Prints the minor page faults of the fifth time that a thread allocates 64 MiB and frees them.
FAULTS = """
import resource, sys, threading
from dasac_jax.runtime import malloc
kept = malloc.keep_memory() if sys.argv[1] == "kept" else False
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=lambda: b"x" * 2**26)
    thread.start()
    thread.join()
    count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, count)
"""


def faults(how, **variables):
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


def test_later_runs_take_no_new_memory():
    kept, count = faults("kept")
    assert kept
    assert count < 500
    assert faults("free")[1] > 5000  # of 4 KiB each; with fewer the test would show nothing
    assert not faults("kept", MALLOC_ARENA_MAX="4")[0]  # the environment has settings already


def test_free_memory_goes_back():
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # What is freed lies between pieces that are still needed, so it cannot go back by itself.
    pieces = [bytes(2**16) for _ in range(1000)]
    del pieces[::2]
    before = resident()
    assert malloc.give_back()
    assert before - resident() > 400 * 2**16
