"""Which kernels took how long in a profile: reads the JSON that `jax.profiler.trace` writes."""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any


def longest(path: str | Path, count: int = 20) -> list[dict[str, Any]]:
    """The kernels that took most of the time, the longest first: name, calls, milliseconds.

    path: a file *.trace.json.gz. Kernels of a GPU are what its streams ran. A CPU has none; there
    it is XLA's operations, which may contain one another.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    named = {(e["name"], e["pid"], e.get("tid")): e["args"]["name"] for e in events if _names(e)}

    def is_kernel(event: dict[str, Any]) -> bool:
        process = named.get(("process_name", event["pid"], None), "")
        if "GPU" in process:
            return "Stream" in named.get(("thread_name", event["pid"], event.get("tid")), "")
        return "hlo_op" in event.get("args", {})

    spent: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and is_kernel(event):
            spent[event["name"]].append(event["dur"] / 1000)
    rows = [
        {"name": name, "calls": len(times), "milliseconds": round(sum(times), 3)}
        for name, times in spent.items()
    ]
    return sorted(rows, key=lambda row: -row["milliseconds"])[:count]


def _names(event: dict[str, Any]) -> bool:
    return event.get("ph") == "M" and event["name"] in ("process_name", "thread_name")
