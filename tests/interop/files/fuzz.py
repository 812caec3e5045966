"""Read many damaged PyTorch files in this process and report what became of each, as JSON.

    python fuzz.py FOLDER COUNT SEED

The damaged files are written to FOLDER, where those that could be read are left. The process has
little memory to spare, a limit of CPU time for every reading, and an audit hook that records
whatever a pickle could make Python do.
"""

import io
import itertools
import json
import pickletools
import random
import resource
import signal
import sys
import zipfile
from collections import Counter
from pathlib import Path

import ml_dtypes  # noqa: F401  (lets numpy name its dtypes)
import numpy as np

from dasac_jax.errors import UserError
from dasac_jax.interop import load_torch_file

FILES = Path(__file__).parent
BASES = ("zip.pth", "legacy.pth", "weights.data")
SPARE_MEMORY = 192 << 20  # what load_torch_file lets tensors add up to is 64 MiB above 8 files
SECONDS = 2.0  # of CPU time, which a busy machine does not use up
WATCHED = (
    "import", "exec", "compile", "marshal", "pickle", "os.", "subprocess", "socket", "ctypes",
    "code.", "shutil", "tempfile", "webbrowser", "urllib", "object.__setattr__",
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)
HOSTILE = (b"os\nsystem\n", b"builtins\neval\n", b"posix\nsystem\n", b"torch\nload\n")


class TooSlow(BaseException):
    """A reading took more CPU time than it may."""


def pickle_of(data: bytes) -> tuple[int, int]:
    """(start, end) of the pickle with the tensors in it."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entry = next(e for e in archive.infolist() if e.filename.endswith("/data.pkl"))
        names = int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        start = entry.header_offset + 30 + names
        return start, start + entry.file_size
    stream = io.BytesIO(data)
    for _ in range(3):
        list(pickletools.genops(stream))
    start = stream.tell()
    list(pickletools.genops(stream))
    return start, stream.tell()


def with_pickle(data: bytes, pickle: bytes) -> bytes:
    """`data` with another pickle, and in a zip archive with the right checksum."""
    start, end = pickle_of(data)
    if not data.startswith(b"PK"):
        return data[:start] + pickle + data[end:]
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith("/data.pkl") else old.read(name))
    return buffer.getvalue()


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, set, cut, insert, leave out or repeat some bytes, or write a number over some."""
    data, place = bytearray(data), rng.randrange(len(data))
    match rng.randrange(8):
        case 0:
            data[place] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randrange(2, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del data[place:]
        case 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 20))
        case 4:
            del data[place : place + rng.randrange(1, 20)]
        case 5:
            length = rng.randrange(1, 200)
            data[place:place] = data[place : place + length] * rng.randrange(1, 4)
        case 6:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << 8 * width)
            data[place : place + width] = number.to_bytes(width, "little")
        case 7:
            for signature in (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x03\x04"):
                if rng.random() < 0.5 and signature in data:
                    header = rng.choice([data.find(signature), data.rfind(signature)])
                    place = min(header + rng.randrange(4, 56), len(data) - 1)
                    data[place : place + 4] = rng.choice(NUMBERS[:8]).to_bytes(4, "little")
    return bytes(data)


def damage_pickle(rng: random.Random, data: bytes) -> bytes:
    """Exchange, repeat, rename or move operations of the pickle, and change its numbers."""
    start, end = pickle_of(data)
    pickle = data[start:end]
    places = [place for _, _, place in pickletools.genops(pickle)] + [len(pickle)]
    parts = [pickle[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(parts))
        match rng.randrange(7):
            case 0:
                operation = rng.choice(pickletools.opcodes)
                parts[place] = operation.code.encode("latin1") + parts[place][1:]
            case 1:
                parts[place] = rng.choice(parts)
            case 2:
                parts[place] = parts[place] * rng.choice((0, 2, 3, 1000))
            case 3 if len(parts[place]) > 1:
                width = min(len(parts[place]) - 1, rng.choice((1, 4)))
                number = rng.choice(NUMBERS) % (1 << 8 * width)
                parts[place] = (
                    parts[place][:1] + number.to_bytes(width, "little") + parts[place][1 + width :]
                )
            case 4:
                named = [i for i, part in enumerate(parts) if part.startswith(b"c")]
                other = rng.choice([parts[rng.choice(named)][1:], rng.choice(HOSTILE)])
                parts[rng.choice(named)] = b"c" + other
            case 5:
                other = rng.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case 6:
                numbers = [i for i, part in enumerate(parts) if part[:1] in (b"K", b"J", b"M")]
                number = rng.choice((-1, 0, 1, 2, 3, 25, 255, 1 << 30))
                parts[rng.choice(numbers)] = b"J" + number.to_bytes(4, "little", signed=True)
    return with_pickle(data, b"".join(parts))


def outline(value):
    """Shapes, dtypes and types of all that a file held; raises where something else is in it."""
    match value:
        case dict():
            return {repr(key): outline(item) for key, item in value.items()}
        case list() | tuple():
            return [type(value).__name__, *map(outline, value)]
        case np.ndarray():
            value.sum() if value.dtype.kind in "biufc" else value.copy()  # touches every element
            return f"{value.dtype}{value.shape}"
        case bool() | int() | float() | complex() | str() | bytes() | None | np.generic():
            return type(value).__name__
        case set() | np.dtype():
            return repr(value)
    raise AssertionError(f"it held a {type(value)}")


def exact(value):
    """All that a file held, in a form that can be compared."""
    match value:
        case dict():
            return {repr(key): exact(item) for key, item in value.items()}
        case list() | tuple():
            return [type(value).__name__, *map(exact, value)]
        case np.ndarray():
            return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    return repr(value)


def run(folder: Path, count: int, seed: int) -> dict:
    """The report: how many files were read and refused, the messages, and what went wrong."""
    bases = {name: (FILES / name).read_bytes() for name in BASES}
    whole = {name: load_torch_file(FILES / name) for name in BASES}
    report = {"read": Counter(), "refused": Counter(), "messages": Counter(), "wrong": []}
    noticed: list[str] = []
    warm_up(folder)
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_MEMORY, used + SPARE_MEMORY))
    signal.signal(signal.SIGPROF, too_slow)
    watching = [False]
    sys.addaudithook(lambda event, arguments: watch(watching, noticed, event, arguments))

    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        name = BASES[number % 3]
        kind = "pickle" if number % 2 else "bytes"
        data = (damage_pickle if kind == "pickle" else damage_bytes)(rng, bases[name])
        path = folder / f"{number:05d}-{kind}-{name}"
        path.write_bytes(data)
        noticed.clear()
        watching[0] = True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            try:
                value = load_torch_file(path, mmap=number % 5 != 0)
            finally:
                watching[0] = False
            outline(value)
        except UserError as error:
            report["refused"][f"{kind} {name}"] += 1
            text = str(error).removeprefix(f"{path}: ")
            report["messages"][" ".join(text.split()[:4])] += 1
            path.unlink()
            if "\n" in str(error) or len(str(error)) > 600 or not str(error).isprintable():
                report["wrong"].append(f"{path.name}: {error!r}")
        except (Exception, TooSlow) as error:
            report["wrong"].append(f"{path.name}: {error!r}")
        else:
            report["read"][f"{kind} {name}"] += 1
            report["wrong"] += compare(path.name, kind, bases[name], data, whole[name], value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        report["wrong"] += [f"{path.name}: {event}" for event in noticed]
    return report


def warm_up(folder: Path) -> None:
    """What Python imports or compiles when something is first read or refused."""
    for name in ("hostile_zip.pth", "hostile_legacy.pth", "missing.pth", "fuzz.py"):
        try:
            load_torch_file(FILES / name)
        except UserError:
            continue
        raise AssertionError(f"{name} was read")


def too_slow(*_):
    raise TooSlow


def watch(watching: list[bool], noticed: list[str], event: str, arguments: tuple) -> None:
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if watching[0] and (event.startswith(WATCHED) or writes):
        noticed.append(f"{event} {arguments!r}")


def compare(name: str, kind: str, base: bytes, data: bytes, whole, value) -> list[str]:
    """What is wrong with what was read: checksums find every change, sizes hold in raw data."""
    if kind == "pickle":
        return []
    if base.startswith(b"PK"):
        return [] if exact(value) == exact(whole) else [f"{name}: other values"]
    _, end = pickle_of(base)
    if data[:end] == base[:end] and outline(value) != outline(whole):
        return [f"{name}: other shapes"]
    return []


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(result))
