"""scripts/download.py: lists the published files, fetches or takes them in, verifies, converts."""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from dasac_jax.cli import Parser, code_of
from dasac_jax.errors import UserError
from dasac_jax.interop.downloads.display import following, open_console, show
from dasac_jax.interop.downloads.fetch import PATIENT, Patience, check_url, fetch, is_page
from dasac_jax.interop.published import KINDS, PUBLISHED, Digests, Published, digests

Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where files come from: their own hosts, a mirror, or a folder on this machine."""

    mirror: str | None = None
    folder: Path | None = None
    patience: Patience = PATIENT

    def url(self, file: Published) -> str:
        """The file's address; a mirror has the same paths below its own."""
        return f"{self.mirror.rstrip('/')}/{file.path}" if self.mirror else file.url


def main(
    arguments: Sequence[str] | None = None,
    *,
    files: Sequence[Published] = PUBLISHED,
    console: Console | None = None,
    patience: Patience = PATIENT,
) -> int:
    """Do what the command line says, and return the exit code: 0, 2 for mistakes, 130 for Ctrl-C.

    files: those that there are. Errors go to stderr, one line each; a file that cannot be had
    does not keep the others from being fetched.
    """
    out = console or open_console()

    def list_or_get() -> int | None:
        options = _parse(arguments)
        if options.names in ([], ["list"]):
            if options.mirror or options.folder or options.convert:
                raise UserError("say what to fetch: names of files, recipes, kinds, or all")
            return show(files, options.output, out)
        origin = Origin(
            check_url(options.mirror) if options.mirror else None, options.folder, patience
        )
        return _get(select(options.names, files), origin, options, out)

    return code_of(list_or_get, "the same command goes on where this one was")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="download.py",
        description="List, fetch and verify the published weights and snapshots.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"files, recipes (gta_r101, …: all they need), kinds ({', '.join(KINDS)}) or all; "
        "nothing, or list: list them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("weights/downloads"),
        metavar="FOLDER",
        help="where files go (default: %(default)s)",
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument(
        "--mirror", metavar="URL", help="fetch from the same paths below this address"
    )
    origin.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="take files that were downloaded already; they are recognised by checksum",
    )
    parser.add_argument(
        "--convert", action="store_true", help="make a checkpoint of each file as well"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("weights"),
        metavar="FOLDER",
        help="where --convert puts them (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def select(names: Iterable[str], files: Sequence[Published]) -> list[Published]:
    """The files that are called so, in the table's order and each once.

    A name is a file's, a recipe's (all files it needs), a kind ("final", "weights", …) or "all".
    Raises UserError for any other.
    """
    groups: dict[str, set[str]] = {"all": {file.name for file in files}}
    for file in files:
        for group in (file.name, file.kind, *file.recipes):
            groups.setdefault(group, set()).add(file.name)
    wanted: set[str] = set()
    for name in names:
        if name not in groups:
            close = difflib.get_close_matches(name, groups, n=1)
            guess = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"no published file, recipe or kind is called {name!r}{guess} "
                "(without arguments this command lists them)"
            )
        wanted |= groups[name]
    return [file for file in files if file.name in wanted]


def _get(
    chosen: Sequence[Published], origin: Origin, options: argparse.Namespace, console: Console
) -> int:
    """Obtain every chosen file, and convert it if asked to; the exit code."""
    code = 0
    networks = {arch for file in chosen if len(file.arches) == 1 for arch in file.arches}
    for file in chosen:
        try:
            path = obtain(file, options.output, origin, console)
            if options.convert:
                _convert(file, path, networks, options.checkpoints, console)
        except UserError as error:
            print(f"error: {file.name}: {error}", file=sys.stderr)
            code = 2
    return code


def obtain(file: Published, output: Path, origin: Origin, console: Console) -> Path:
    """Put a published file at `output`/name, unless it is there already, and return its path.

    Nothing gets that name before it is verified. What turns out wrong, there already or new, is
    kept as name.bad. Raises UserError where the file cannot be had, or is not the published one.
    """
    say = _say(file, console)
    target = output / file.name
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            sums = digests(target)
            if file.matches(sums) is not False:
                say(f"is there already, {_verdict(file)}")
                return target
            bad = target.replace(_bad(target))
            say(f"what was there is not the published file ({_fault(file, sums)}): now {bad}")
        if origin.folder:
            _take(file, origin.folder, part)
            _accept(file, part, target, say)
        else:
            _load(file, origin, part, target, console)
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}") from error
    return target


def _load(file: Published, origin: Origin, part: Path, target: Path, console: Console) -> None:
    """Fetch a file and accept it. One that came in pieces is fetched anew if it is wrong."""
    say = _say(file, console)
    url = origin.url(file)
    for last in (False, True):
        say(f"loading {url}")
        with following(file.name, console) as report:
            pieces = fetch(
                url,
                part,
                report=report,
                note=say,
                resume_unmarked=file.checked,
                patience=origin.patience,
            )
        try:
            return _accept(file, part, target, say)
        except UserError as error:
            if last or not pieces:
                raise
            say(f"{error}. It came in several pieces: once more from the beginning")


def _accept(file: Published, part: Path, target: Path, say: Say) -> None:
    """Give a complete file its name if it is the published one; else raise UserError."""
    sums = digests(part)
    right = file.matches(sums)
    if right is None:
        with open(part, "rb") as stream:
            right = sums.size > 0 and not is_page(stream.read(512))
    if not right:
        raise UserError(f"refused: {_fault(file, sums)}; kept as {part.replace(_bad(target))}")
    part.replace(target)
    say(f"{sums.size / 2**20:.1f} MiB, {_verdict(file)}")


def _take(file: Published, folder: Path, part: Path) -> None:
    """Link, or else copy, the file among those below `folder` to `part`."""
    if not folder.is_dir():
        raise UserError(f"--from: there is no folder {folder}")
    for path in _candidates(file, folder):
        status = path.stat()
        if file.checked and not file.matches(_sums(path, status.st_size, status.st_mtime_ns)):
            continue
        part.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), part)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, part)
        return
    what = file.checksum if file.checked else "this name"
    raise UserError(f"no *{Path(file.name).suffix} file below {folder} has {what}")


def _candidates(file: Published, folder: Path) -> Iterator[Path]:
    """Files that may be it, likely ones first: published names are shared, and browsers rename."""
    paths = [path for path in folder.rglob(f"*{Path(file.name).suffix}") if path.is_file()]
    if not file.checked:
        paths = [path for path in paths if path.name == file.basename]
    stem = Path(file.name).stem

    def unlikeliness(path: Path) -> tuple[bool, bool, str]:
        placed = path.as_posix().endswith("/" + file.name)
        return not placed, not path.name.startswith(stem), str(path)

    yield from sorted(paths, key=unlikeliness)


@cache
def _sums(path: Path, size: int, changed: int) -> Digests:
    """`digests`, once for all files that are looked for; size and time tell a changed file."""
    return digests(path)


def _convert(
    file: Published, path: Path, networks: set[str], checkpoints: Path, console: Console
) -> None:
    """Make checkpoints/… of a verified file; for those of its networks that others are for."""
    # Imported late: listing and fetching do without jax.
    from dasac_jax.interop.convert import convert

    say = _say(file, console)
    if file.kind == "weights":
        return say("importance weights are no network: not converted")
    wanted = networks & set(file.arches) or set(file.arches)
    for name, arch in file.checkpoints.items():
        output = checkpoints / name
        if arch not in wanted:
            continue
        if output.exists():
            say(f"{output} is there already: not converted again")
            continue
        convert(path, output, arch=arch)
        say(f"converted to {output}")


def _say(file: Published, console: Console) -> Say:
    def say(text: str) -> None:
        console.print(f"{file.name}: {text}", markup=False, highlight=False, soft_wrap=True)

    return say


def _bad(target: Path) -> Path:
    return target.with_name(target.name + ".bad")


def _verdict(file: Published) -> str:
    return "verified" if file.checked else "unverified: no checksum is published for it"


def _fault(file: Published, sums: Digests) -> str:
    """What is wrong with a file of these sums."""
    if file.md5:
        return f"its MD5 is {sums.md5}, the published file's {file.md5}"
    if file.sha256:
        head = sums.sha256[: len(file.sha256)]
        return f"its SHA-256 begins with {head}, the published file's with {file.sha256}"
    return "it is empty or a web page"
