"""Writes report.html: all of a run on one page, which is a single file.

It holds its pictures and style itself and loads nothing, fits phones, and follows the reader's
light or dark scheme.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dasac_jax.data.labels import Class
from dasac_jax.errors import UserError
from dasac_jax.files import CONFIG_FILE, PAGE_FILE, PICTURE_FILE, write_file
from dasac_jax.reporting import (
    class_shares_html,
    metrics_log,
    page_style,
    start_log,
    summary,
    training_curves,
)
from dasac_jax.reporting.metrics_log import Line
from dasac_jax.reporting.tables import one_line, percent

_CAPTIONS = {
    "selection": "Images of the selection split in rows, with truth, the student's prediction and "
    "its confidence",
    "views": "Views of one target image in rows: the student's view with its noise, the teacher's "
    "prediction, the same aligned to the reference frame, pooled over all views and brought back, "
    "its confidence, and the pseudo labels; black is ignored or unseen",
}
_LEAST_WIDTH = 960  # pixels: on narrower screens a large picture scrolls instead of shrinking
_STAGES = {"baseline": "Baseline", "adapt": "Adaptation"}


def write(workdir: Path | str) -> None:
    """Write report.html of a run from what its work directory holds, replacing it whole.

    metrics.json is needed; metrics.jsonl, runs.jsonl, config.json, report.png and the pictures of
    validations are shown where they exist. Raises UserError where one cannot be read.
    """
    workdir = Path(workdir)
    result, lines = summary.read(workdir), metrics_log.read(workdir)
    parts = [
        *_mean_scores(result),
        *class_shares_html.section(result),
        *_result_picture(workdir),
        *_class_scores(result),
        *_curves(lines, summary.classes(result)),
        *_pictures(workdir),
        *_facts(result, lines, start_log.read(workdir)),
        *_configuration(workdir),
    ]
    facts = result["facts"]
    about = " · ".join(one_line(facts[key]) for key in ("arch", "device") if key in facts)
    about += f" · seed {facts['seed']}" if "seed" in facts else ""
    title = f"Run {workdir.resolve().name}"
    write_file(workdir / PAGE_FILE, page_style.document(title, about, parts))


def _section(title: str, content: str) -> str:
    """A titled part of the page; content: HTML."""
    return f"<section><h2>{html.escape(title)}</h2>\n{content}</section>\n"


def _mean_scores(result: Mapping[str, Any]) -> Iterator[str]:
    """The mean IoU of each evaluation in large letters."""
    mious = summary.totals(result)["mean IoU"]
    if not mious:
        yield f'<p class="soft">{summary.UNSCORED}</p>\n'
        return
    name_of_reference = summary.reference(mious)
    reference = mious.get(name_of_reference)
    tiles = []
    for name, miou in mious.items():
        gain = ""
        if name in ("adapted", "teacher") and None not in (miou, reference):
            gain = f'<span class="soft">{_signed(miou - reference)} over {name_of_reference}</span>'
        chosen = ' class="chosen"' if name == "adapted" else ""
        tiles.append(
            f'<li{chosen}><span class="soft">{html.escape(name)}</span>'
            f"<strong>{percent(miou)}</strong>{gain}</li>"
        )
    yield (
        f'<ul class="tiles" aria-label="Mean IoU in percent">\n{"".join(tiles)}</ul>\n'
        '<p class="soft">Mean IoU in % on the target validation set.'
        f" {html.escape(summary.absent_note(result))}</p>\n"
    )


def _signed(difference: float) -> str:
    """A difference of scores in points, coloured by its sign."""
    points = round(100 * difference, 1)
    kind = "more" if points > 0 else "less"
    return f'<span class="{kind}">{points:+.1f}</span>' if points else "0.0"


def _result_picture(workdir: Path) -> Iterator[str]:
    path = workdir / PICTURE_FILE
    if path.exists():
        caption = "Images of the validation set in rows, with truth and each network's prediction"
        yield _section("Predictions", _figure(path, caption))


def _class_scores(result: Mapping[str, Any]) -> Iterator[str]:
    """The IoU of every class and the totals as a table; the best of a row is bold."""
    found = summary.evaluations(result)
    if not found:
        return
    reference = summary.reference(found)
    compared = {reference, "adapted"} <= found.keys()
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("class", *found))
    head += '<th scope="col">gain</th>' if compared else ""
    colours = {x.name: "#{:02x}{:02x}{:02x}".format(*x.color) for x in summary.classes(result)}
    body = ""
    for name, scores in summary.ious(result).items():
        colour = colours.get(name)
        dot = f'<span class="dot" style="background:{colour}"></span>' if colour else ""
        left_out = name in result["left_out"]
        note = f"<small>{summary.NOT_IN_MEAN}</small>" if left_out else ""
        body += _row(f"{dot}{html.escape(name)}{note}", scores, compared)
    titles = {"mean IoU": summary.mean_title(result)}
    totals = summary.totals(result).items()
    foot = "".join(_row(titles.get(title, title), scores, compared) for title, scores in totals)
    content = (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table">\n'
        f'<table class="scores">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n'
        f"<tfoot>\n{foot}</tfoot>\n</table></div>\n"
    )
    if compared:
        content += f'<p class="soft">Gain: adapted over {reference}, in points.</p>\n'
    yield _section("IoU by class, %", content)


def _row(label: str, scores: summary.Scores, compared: bool) -> str:
    """A row of the table; label: HTML. compared: whether it ends with the adaptation's gain."""
    row = f'<th scope="row">{label}</th>'
    known = [score for score in scores.values() if score is not None]
    for score in scores.values():
        best = ' class="best"' if len(known) > 1 and score == max(known) else ""
        row += f"<td{best}>{percent(score)}</td>"
    if compared:
        after, before = scores["adapted"], scores[summary.reference(scores)]
        row += f"<td>{'–' if None in (after, before) else _signed(after - before)}</td>"
    return f"<tr>{row}</tr>\n"


def _curves(lines: Sequence[Line], classes: Sequence[Class]) -> Iterator[str]:
    """The curves of training, drawn for either colour scheme."""
    light, dark = (training_curves.draw(lines, classes, dark=dark) for dark in (False, True))
    figures = [
        '<figure><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{_data(dark[name])}"><img src="{_data(light[name])}" '
        f'alt="{html.escape(training_curves.describe(lines, name, classes))}"></picture></figure>\n'
        for name in light
    ]
    if figures:
        yield _section("Curves", f'<div class="curves">\n{"".join(figures)}</div>\n')


def _pictures(workdir: Path) -> Iterator[str]:
    """The last pictures of each stage, and the first ones to compare with.

    Those in between are left out, so that the page of a long run stays small.
    """
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for stage, step, name, path in metrics_log.pictures(workdir):
        found.setdefault((stage, name), []).append((step, path))
    for stage, title in _STAGES.items():
        content = ""
        for name in (name for other, name in found if other == stage):
            caption, steps = _CAPTIONS.get(name, name), found[stage, name]
            (first, before), (last, path) = steps[0], steps[-1]
            content += _figure(path, f"{caption}, after step {last}")
            if first != last:
                figure = _figure(before, f"{caption}, after step {first}")
                content += f"<details><summary>The same after step {first}</summary>{figure}"
                content += "</details>\n"
        if content:
            yield _section(f"{title}: pictures of validation", content)


def _figure(path: Path, caption: str) -> str:
    """A PNG file with its caption; where it is too wide for the screen it scrolls by itself."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    caption = html.escape(caption)
    # A PNG file has its width and height at these bytes.
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    least = min(6 * width // 10, _LEAST_WIDTH)
    return (
        '<figure><div class="scroll" tabindex="0" role="group" aria-label="Picture">'
        f'<img src="{_data(content)}" width="{width}" height="{height}" '
        f'style="min-width: {least}px" alt="{caption}"></div>'
        f"<figcaption>{caption}.</figcaption></figure>\n"
    )


def _facts(
    result: Mapping[str, Any], lines: Sequence[Line], starts: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Timing and versions: the facts of the result, durations, and the last start."""
    facts = {name: one_line(fact) for name, fact in result["facts"].items()}
    for stage, title in _STAGES.items():
        mine = [line for line in lines if line["stage"] == stage]
        seconds = metrics_log.seconds(lines).get(stage, 0.0)
        if seconds:
            steps = mine[-1]["step"]
            facts[f"{title.lower()}, training"] = (
                f"{steps} steps in {seconds / 60:.1f} minutes, {steps / seconds:.3g} a second, "
                "with compiling and validation"
            )
    if starts:
        last = starts[-1]
        facts["starts"] = f"{len(starts)}, the last at {last['started']}"
        if last["commit"]:
            changed = ", with changes" if last["commit"]["changed"] else ""
            facts["git commit"] = last["commit"]["id"] + changed
        facts["command"] = last["command"]
    yield _section("Timing and versions", _plain_table(facts))


def _configuration(workdir: Path) -> Iterator[str]:
    """The configuration as a table that is closed at first."""
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    table = _plain_table({key: json.dumps(value) for key, value in config.items()})
    title = f"<summary>All {len(config)} keys</summary>"
    yield _section("Configuration", f"<details>{title}{table}</details>\n")


def _plain_table(entries: Mapping[str, str]) -> str:
    """A table of names and texts."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>\n'
        for name, text in entries.items()
    )
    return f'<table class="plain"><tbody>\n{rows}</tbody></table>\n'


def _data(content: bytes) -> str:
    """The address that holds a PNG file itself."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
