"""The classes of a run: Cityscapes' 19, or those of the configuration in `config.data.classes`.

A configuration may have its own classes if the data are the user's own (`data.source` is "custom").
Their label files may hold numbers of up to 16 bits or colours; an id map says which class each of
them stands for, and is applied when a file is read.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dasac_jax.data.label_values import MAX_NUMBER, IdMap, Value, is_colour, text
from dasac_jax.data.labels import CLASSES, Class

CUSTOM = "custom"
"""The value of `data.source` for data of the user's own."""

MAX_CLASSES = 254
"""The most classes of 8-bit label files, in which 255 stands for ignored pixels."""


def of(data_config: Any) -> tuple[Class, ...]:
    """The classes of a configuration's `data` section, in the order of their train ids."""
    section = getattr(data_config, "classes", None)
    if section is None or not section.names:
        return CLASSES
    return own(section.names, section.palette)


def own(names: Sequence[str], palette: Sequence[Sequence[int]]) -> tuple[Class, ...]:
    """The classes of the given names and RGB colours, with the train ids 0, 1, … in this order."""
    pairs = zip(names, palette, strict=True)
    return tuple(Class(name, i, i, tuple(map(int, rgb))) for i, (name, rgb) in enumerate(pairs))


def id_map(data_config: Any, role: str) -> IdMap:
    """The class of each label value in a role's files; empty where the values are train ids."""
    section = getattr(data_config, "classes", None)
    if section is None:
        return ()
    train_ids = {entry.name: entry.train_id for entry in of(data_config)}
    ids = section.source_ids if role.startswith("source") else section.target_ids
    return tuple((value, train_ids[name]) for key, name in ids for value in _values(key))


def problems(source: str, section: Any) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) for every mistake in `section`, the section `data.classes` or a dict.

    source: the value of `data.source`.
    """
    names = list(section["names"])
    if source != CUSTOM:
        for key in section:
            if section[key]:
                yield key, f'classes of your own need your own data: data.source = "{CUSTOM}"'
        return
    if names and not 2 <= len(names) <= MAX_CLASSES:
        yield "names", f"from 2 to {MAX_CLASSES} classes work"
    if not all(isinstance(name, str) and name and name == " ".join(name.split()) for name in names):
        yield "names", "words with single spaces between them are needed"
        return
    if len(set(names)) < len(names):
        yield "names", "each class needs a name of its own"
    if len(section["palette"]) != len(names):
        yield "palette", f"{len(section['palette'])} colours do not fit {len(names)} names"
    if not all(is_colour(colour) for colour in section["palette"]):
        yield "palette", "a colour is three whole numbers from 0 to 255: (red, green, blue)"
    known = names or [entry.name for entry in CLASSES]
    for key in ("source_ids", "target_ids"):
        problem = _id_problem(section[key], known)
        if problem:
            yield key, problem
    mapped = {pair[1] for pair in section["source_ids"] if _is_pair(pair)}
    if mapped and not mapped >= set(known):
        absent = next(name for name in known if name not in mapped)
        yield "source_ids", f"no label value stands for {absent!r}, so nothing could teach it"


def _values(key: Any) -> tuple[Value, ...]:
    """The values that the first part of a pair of an id map names: one, or all of a range."""
    if isinstance(key, int):
        return (key,)
    return tuple(range(key[0], key[1] + 1)) if len(key) == 2 else (tuple(key),)


def _is_key(key: Any) -> bool:
    if isinstance(key, list | tuple) and len(key) == 2:
        return all(isinstance(end, int) and _is_key(end) for end in key) and key[0] <= key[1]
    return is_colour(key) or (isinstance(key, int) and 0 <= key <= MAX_NUMBER)


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        return False
    return _is_key(pair[0]) and isinstance(pair[1], str)


def _id_problem(ids: Sequence[Any], known: Sequence[str]) -> str | None:
    """What is wrong with an id map of the classes `known`, or None."""
    seen: set[Value] = set()
    for pair in ids:
        if not _is_pair(pair):
            return (
                f"{pair!r} is no pair of a label value and a class name; a value is a number from "
                f"0 to {MAX_NUMBER}, a range of them (first, last), or a colour (red, green, blue)"
            )
        key, name = pair
        values = _values(key)
        if name not in known:
            return (
                f"{name!r}, for label value {text(key)}, is none of the classes {', '.join(known)}"
            )
        twice = next((value for value in values if value in seen), None)
        if twice is not None:
            return f"label value {text(twice)} is given twice"
        seen.update(values)
    return None
