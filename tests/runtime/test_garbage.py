"""Python looks for garbage seldom in commands, and still finds it."""

import gc
import subprocess
import sys
import weakref

from dasac_jax.runtime import garbage


def test_what_is_there_by_then_is_passed_over_and_what_comes_later_is_found():
    garbage.collect_seldom()
    assert gc.get_freeze_count() > 0

    class Node:
        pass

    node = Node()
    node.itself = node
    alive = weakref.ref(node)
    del node
    gc.collect()
    assert alive() is None


def test_it_is_looked_for_less_often():
    script = (
        "import gc; {}\n"
        "before = gc.get_stats()[0]['collections']\n"
        "kept = [[i] for i in range(80_000)]\n"
        "print(gc.get_stats()[0]['collections'] - before)"
    )
    often, seldom = (
        int(subprocess.check_output([sys.executable, "-c", script.format(first)]))
        for first in ("", "from dasac_jax.runtime import garbage; garbage.collect_seldom()")
    )
    assert seldom <= 1 < often
