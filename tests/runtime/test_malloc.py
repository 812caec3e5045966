"""Memory that was freed stays with the process, or comes in huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def printed(*arguments, **variables):
    """The words that Python prints with these arguments and environment variables."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    path = os.pathsep.join([str(ROOT), variables.pop("path", "")])
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def faults(how, **variables):
    kept, count = printed("-c", FAULTS, how, **variables)
    return kept == "True", int(count)


def test_later_runs_take_no_new_memory():
    kept, count = faults("kept")
    assert kept
    assert count < 500
    assert faults("free")[1] > 5000  # of 4 KiB each; with fewer the test would show nothing
    assert not faults("kept", MALLOC_ARENA_MAX="4")[0]  # the environment has settings already


# Prints the resident MiB beside what is in use, before and after giving the rest back.
GIVEN_BACK = """
from pathlib import Path
from dasac_jax.runtime import malloc
assert malloc.keep_memory()

def resident():
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x]
    return int(line.split()[1]) // 1024

start = resident()
pieces = [b"x" * 100_000 for _ in range(2000)]
kept = pieces[::100]  # the rest lies between them
del pieces
before = resident() - start
malloc.give_back()
print(before, resident() - start)
"""


def test_what_lies_between_pieces_in_use_is_given_back():
    before, after = map(int, printed("-c", GIVEN_BACK))
    assert before > 150 and after < 30


COMMAND = """
import os, sys
from dasac_jax.runtime import malloc
malloc.keep_memory = lambda: print("kept")
malloc.prepare()
print(os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""
HUGE = "glibc.malloc.hugetlb=1"


class TestPrepare:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "command.py").write_text(COMMAND)
        return str(tmp_path)

    def test_the_command_starts_once_more(self, folder):
        words = printed("-m", "command", "--flag", "-m", path=folder)
        tunables = HUGE if malloc._has_huge_pages() else "None"
        assert words == ["kept", tunables, "--flag", "-m"]

    def test_not_where_a_module_is_run_by_another(self, folder):
        assert printed("-m", "runpy", "command", path=folder)[:2] == ["kept", "None"]
        assert printed("-c", COMMAND)[:2] == ["kept", "None"]

    def test_not_where_the_environment_has_settings(self, folder):
        words = printed("-m", "command", path=folder, GLIBC_TUNABLES="glibc.malloc.arena_max=3")
        assert words == ["kept", "glibc.malloc.arena_max=3"]
        assert printed("-m", "command", path=folder, MALLOC_ARENA_MAX="3") == ["kept", "None"]

    @pytest.mark.parametrize(
        ("setting", "found"),
        [("always [madvise] never", True), ("[always] madvise never", True),
         ("always madvise [never]", False), (None, False)],
    )  # fmt: skip
    def test_what_the_kernel_says_counts(self, setting, found, tmp_path, monkeypatch):
        file = tmp_path / "enabled"
        if setting is not None:
            file.write_text(setting)
        monkeypatch.setattr(malloc, "_KERNEL_SETTING", file)
        monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.35")
        assert malloc._has_huge_pages() == found
        monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.34")
        assert not malloc._has_huge_pages()


# Python runs it before any module: what would start once more says so instead.
INSTEAD = """
import os
from dasac_jax.runtime import malloc
malloc._has_huge_pages = lambda: True
os.execve = lambda path, arguments, environment: (print(*arguments[1:]), os._exit(0))
"""


@pytest.mark.parametrize("command", ["main", "predict", "evaluate"])
def test_the_commands_are_prepared(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INSTEAD)
    words = printed("-m", f"dasac_jax.{command}", "--help", path=str(tmp_path))
    assert words[:3] == ["-m", f"dasac_jax.{command}", "--help"]
