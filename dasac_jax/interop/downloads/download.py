"""The command scripts/download.py: list, download, verify and convert the published files."""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from dasac_jax.cli import Parser, code_of
from dasac_jax.errors import UserError
from dasac_jax.files import replacing
from dasac_jax.interop.downloads.display import open_console, print_table, show_progress
from dasac_jax.interop.downloads.fetch import check_url, fetch, is_page
from dasac_jax.interop.published import KINDS, PUBLISHED, Digests, Published, digests

Log = Callable[[str], None]
"""Prints a message about one file."""


@dataclass(frozen=True)
class Origin:
    """Where files come from: the publishers' servers, a mirror, or a folder on this machine."""

    mirror: str | None = None
    folder: Path | None = None

    def url(self, file: Published) -> str:
        """The file's address; on a mirror it has the same path below the mirror's address."""
        return f"{self.mirror.rstrip('/')}/{file.path}" if self.mirror else file.url


def main(
    arguments: Sequence[str] | None = None,
    *,
    files: Sequence[Published] = PUBLISHED,
    console: Console | None = None,
) -> int:
    """Do what the command line says, and return the exit code: 0, 2 for mistakes, 130 for Ctrl-C.

    files: the published files to choose from. Errors go to stderr, one line each; after an error of
    one file the others are still downloaded.
    """
    out = console or open_console()

    def list_or_get() -> int | None:
        options = _parse(arguments)
        if options.names in ([], ["list"]):
            if options.mirror or options.folder or options.convert:
                raise UserError("say what to fetch: names of files, recipes, kinds, or all")
            return print_table(files, options.output, out)
        origin = Origin(options.mirror and check_url(options.mirror), options.folder)
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
    """The files that `names` stand for, in the table's order and each once.

    A name is that of a file, of a recipe (for all files it needs), of a kind ("final", "weights",
    …), or "all". Raises UserError for any other name.
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
    """Obtain every chosen file, and convert it if asked to. Returns the exit code."""
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
    """Put a published file at `output`/name, unless it exists already, and return its path.

    A file gets that name only when it is verified. A wrong file, new or found there, is kept as
    name.bad. Raises UserError where the file cannot be obtained or is not the published one.
    """
    log = _log(file, console)
    target = output / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            problem = _fault(file, target)
            if problem is None:
                log(f"is there already, {_verification(file)}")
                return target
            bad = target.replace(target.with_name(target.name + ".bad"))
            log(f"what was there is not the published file ({problem}): now {bad}")
        if origin.folder:
            _copy_from(file, origin.folder, target)
        else:
            url = origin.url(file)
            log(f"loading {url}")
            with show_progress(file.name, console) as report:
                fetch(url, target, fault=partial(_fault, file), report=report, log=log)
        log(f"{target.stat().st_size / 2**20:.1f} MiB, {_verification(file)}")
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}") from error
    return target


def _fault(file: Published, path: Path) -> str | None:
    """How the file at `path` differs from the published one; None if it does not."""
    status = path.stat()
    found = _digests(path, status.st_size, status.st_mtime_ns)
    if file.matches(found):
        return None
    if file.md5:
        return f"its MD5 is {found.md5}, the published file's {file.md5}"
    if file.sha256:
        head = found.sha256[: len(file.sha256)]
        return f"its SHA-256 begins with {head}, the published file's with {file.sha256}"
    with open(path, "rb") as stream:
        is_file = found.size and not is_page(stream.read(512))
    return None if is_file else "it is empty or a web page"


def _copy_from(file: Published, folder: Path, target: Path) -> None:
    """Link, or else copy, the published file to `target`; look for it at any depth of `folder`."""
    if not folder.is_dir():
        raise UserError(f"--from: there is no folder {folder}")
    problem = None
    for path in _candidates(file, folder):
        problem = _fault(file, path)
        if problem is None:
            with replacing(target) as place:
                try:
                    os.link(path.resolve(), place)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(path, place)
            return
    if problem and not file.checked:
        raise UserError(f"refused: {problem}")
    what = file.checksum if file.checked else "this name"
    raise UserError(f"no *{Path(file.name).suffix} file below {folder} has {what}")


def _candidates(file: Published, folder: Path) -> Iterator[Path]:
    """The files below `folder` that may be the published one, likely ones first.

    A name does not decide: several published files share one, and browsers rename what they save.
    """
    paths = [path for path in folder.rglob(f"*{Path(file.name).suffix}") if path.is_file()]
    if not file.checked:
        paths = [path for path in paths if path.name == file.basename]
    stem = Path(file.name).stem

    def order(path: Path) -> tuple[bool, bool, str]:
        in_published_folder = path.as_posix().endswith("/" + file.name)
        return not in_published_folder, not path.name.startswith(stem), str(path)

    yield from sorted(paths, key=order)


@cache
def _digests(path: Path, size: int, changed: int) -> Digests:
    """`digests`, computed once for each file; size and time are arguments to notice a change."""
    return digests(path)


def _convert(
    file: Published, path: Path, networks: set[str], checkpoints: Path, console: Console
) -> None:
    """Convert a file to a checkpoint for each of its networks, below the folder `checkpoints`.

    Of several networks only those in `networks` are taken, where there are any: the ones that the
    other chosen files are for.
    """
    # Imported only now, so that listing and downloading do not load JAX.
    from dasac_jax.interop.convert import convert

    log = _log(file, console)
    if file.kind == "weights":
        return log("importance weights are no network: not converted")
    wanted = networks & set(file.arches) or set(file.arches)
    for name, arch in file.checkpoints.items():
        output = checkpoints / name
        if arch not in wanted:
            continue
        if output.exists():
            log(f"{output} is there already: not converted again")
            continue
        convert(path, output, arch=arch)
        log(f"converted to {output}")


def _log(file: Published, console: Console) -> Log:
    """A function that prints a message after the file's name."""
    return lambda text: console.print(
        f"{file.name}: {text}", markup=False, highlight=False, soft_wrap=True
    )


def _verification(file: Published) -> str:
    return "verified" if file.checked else "unverified: no checksum is published for it"
