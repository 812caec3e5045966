"""report.html holds what the work directory holds, and a browser shows it without complaint."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.data.classes import own
from dasac_jax.data.labels import CLASS_NAMES, CLASSES
from dasac_jax.errors import UserError
from dasac_jax.evaluation.metrics import summarise
from dasac_jax.reporting import metrics_log, page, summary, training_curves
from dasac_jax.reporting.recorder import Recorder

EVALUATIONS = ("source only", "baseline", "adapted", "teacher")
ABSENT, LEFT_OUT = 3, 9
# Written into a copy of the page, which tells the frame around it what it finds.
PROBE = """<script>addEventListener("load", () => {
  const root = document.documentElement, shown = document.querySelectorAll("img");
  parent.postMessage(JSON.stringify({
    heading: document.querySelector("h1").textContent,
    sections: [...document.querySelectorAll("h2")].map(x => x.textContent),
    rows: [...document.querySelectorAll(".scores tr")].map(
      x => [...x.children].map(cell => cell.textContent)),
    images: [...shown].map(x => [x.naturalWidth, x.naturalHeight, x.alt]),
    curve: document.querySelector(".curves img")?.currentSrc.length,
    fetched: performance.getEntriesByType("resource").map(x => x.name)
      .filter(x => !x.startsWith("data:")),
    width: innerWidth, overflow: root.scrollWidth - root.clientWidth,
    ground: getComputedStyle(document.body).backgroundColor,
  }), "*");
});</script>"""
# A window has a least width, a frame has none. --dump-dom prints the title.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<script>addEventListener("message", told => { document.title = told.data; });</script>
<iframe src="probed.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>"""


def scores_of(seed):
    counts = np.random.default_rng(seed).integers(1, 1000, (19, 19)) + 3000 * np.eye(19, dtype=int)
    counts[ABSENT] = counts[:, ABSENT] = 0
    return summarise(counts, ignore=(LEFT_OUT,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory as a run leaves it, with its page."""
    folder = tmp_path_factory.mktemp("run") / "a <b> & c"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (500, 1500, 3), np.uint8)
    noise[50:] = 90
    record(folder, "baseline", (50, 100), {"selection": noise[:300, :400]})
    record(folder, "adapt", (50, 100, 150), {"selection": noise[:, :1000], "views": noise})
    (folder / "config.json").write_text('{"arch": "tiny", "adapt.pool": "<average>"}')
    summary.write(
        folder,
        {name: scores_of(seed) for seed, name in enumerate(EVALUATIONS)},
        CLASSES,
        ignore=(LEFT_OUT,),
        picture=noise[:, :1100],
        facts={"seed": 3, "arch": "tiny", "device": "1 × cpu", "versions": {"jax": "0.10"}},
    )
    page.write(folder)
    return folder


def record(folder, stage, steps, pictures):
    with Recorder(folder, stage, 0, CLASSES) as recorder:
        recorder.draw = lambda: None  # the page draws its own
        for step in steps:
            prior = np.linspace(0.001, 0.2, 19)
            values = {"loss_source": 100 / step, "selection_miou": step / 300}
            values |= {"class_prior": prior} if stage == "adapt" else {}
            shown = {name: picture + np.uint8(step) for name, picture in pictures.items()}
            recorder.add(step, values, shown)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.words = [], []
        self.content = path.read_text(encoding="utf-8")
        self.feed(self.content)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_everything_is_on_the_page_itself(run):
    found = Page(run / "report.html")
    assert found.of("script") == found.of("link") == found.of("iframe") == []
    sources = [entry[key] for _, entry in found.tags for key in ("src", "srcset") if key in entry]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not [entry for _, entry in found.tags if "href" in entry]
    assert "url(" not in found.content and "@import" not in found.content
    policy = found.of("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert found.of("html") == [{"lang": "en"}]


def test_every_picture_is_there_and_said_in_words(run):
    found = Page(run / "report.html")
    images = found.of("img")
    # The predictions, the curves, of three kinds of picture the last and the first.
    assert len(images) == 1 + 3 + 2 * 3
    assert all(len(image["alt"]) > 40 for image in images)
    alts = " ".join(image["alt"] for image in images)
    for words in (
        "after step 150",
        "after step 50",
        "pseudo labels",
        "source from 2 to 1 in steps",
    ):
        assert words in alts
    prefix = "data:image/png;base64,"
    embedded = {base64.b64decode(image["src"].removeprefix(prefix)) for image in images}
    for name in ("adapt_000150_views", "adapt_000050_views", "baseline_000100_selection"):
        assert (run / "pictures" / f"{name}.png").read_bytes() in embedded
    assert (run / "report.png").read_bytes() in embedded
    # Of what lies between nothing: the page of a long run stays small.
    assert (run / "pictures" / "adapt_000100_views.png").read_bytes() not in embedded


def test_facts_timing_and_configuration(run):
    text = Page(run / "report.html").text
    for words in ("adapt.pool", '"<average>"', "jax 0.10", "tiny · 1 × cpu · seed 3"):
        assert words in text
    assert re.search(r"adaptation, training 150 steps in \d+\.\d minutes, \S+ a second", text)


def test_names_are_text_not_markup(run):
    found = Page(run / "report.html")
    assert found.of("b") == [] and found.of("average") == []
    assert "Run a <b> & c" in found.text


def test_a_run_that_left_little(tmp_path):
    summary.write(tmp_path, {"adapted": scores_of(0)}, CLASSES, facts={})
    page.write(tmp_path)
    found = Page(tmp_path / "report.html")
    assert found.of("img") == [] and "gain" not in found.text
    assert len(found.of("tr")) == 1 + 19 + 2
    unscored = summarise(np.zeros((19, 19)))
    summary.write(tmp_path, {"baseline": unscored, "adapted": unscored}, CLASSES, facts={})
    page.write(tmp_path)
    assert "–" in Page(tmp_path / "report.html").text


def test_classes_have_the_colours_of_the_run(tmp_path):
    names = ("x <y>", "sky")
    scores = summarise(np.array([[3, 1], [0, 2]]))
    summary.write(tmp_path, {"adapted": scores}, own(names, ((1, 2, 3), (4, 5, 255))), facts={})
    page.write(tmp_path)
    found = Page(tmp_path / "report.html")
    dots = [dot["style"] for dot in found.of("span") if dot.get("class") == "dot"]
    assert dots == ["background:#010203", "background:#0405ff"]
    # Results without classes are of Cityscapes'.
    result = json.loads((tmp_path / "metrics.json").read_text())
    del result["classes"]
    (tmp_path / "metrics.json").write_text(json.dumps(result))
    page.write(tmp_path)
    dots = [x["style"] for x in Page(tmp_path / "report.html").of("span") if "style" in x]
    assert dots == ["background:#4682b4"]


def test_a_class_with_a_bracket_in_its_name_keeps_its_colour(tmp_path):
    scores = summarise(np.array([[3, 1], [0, 2]]))
    classes = own(("car (parked)", "sky"), ((1, 2, 3), (4, 5, 6)))
    summary.write(tmp_path, {"adapted": scores}, classes, ignore=(0,), facts={})
    page.write(tmp_path)
    assert (
        '<span class="dot" style="background:#010203"></span>car (parked)'
        "<small>(not in the mean)</small></th>"
    ) in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_read_is_named(run, tmp_path):
    shutil.copy(run / "metrics.json", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        page.write(tmp_path)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*metrics\.json"):
        page.write(tmp_path)


@pytest.fixture
def shown_by_browser(browser, browser_environment, tmp_path):
    """A function: page, width, dark → what the probe finds in a copy of it, and the console."""

    def open_it(page: Path, width: int, dark: bool = False):
        content = page.read_text(encoding="utf-8")
        assert content.count("default-src 'none';") == 1
        content = content.replace(
            "default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';"
        ).replace("</body>", PROBE + "</body>")
        (tmp_path / "probed.html").write_text(content, encoding="utf-8")
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
        ended = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--disable-sync",
                f"--user-data-dir={tmp_path / f'profile{width}{dark}'}",
                "--enable-logging=stderr", "--v=0", "--window-size=1280,960",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--virtual-time-budget=10000", "--dump-dom", frame.as_uri(),
            ],
            env=browser_environment, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        title = re.search(r"<title>(.*?)</title>", ended.stdout, re.DOTALL)[1]
        found = json.loads(html.unescape(title))
        return found, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]

    return open_it


def test_a_browser_shows_it_on_a_phone(run, shown_by_browser):
    found, console = shown_by_browser(run / "report.html", 400)
    assert console == [] and found["fetched"] == []
    assert found["width"] == 400 and found["overflow"] == 0
    assert found["heading"] == "Run a <b> & c"
    assert found["sections"] == [
        "Predictions", "IoU by class, %", "Curves", "Baseline: pictures of validation",
        "Adaptation: pictures of validation", "Timing and versions", "Configuration",
    ]  # fmt: skip
    header, *rows = found["rows"]
    assert header == ["class", *EVALUATIONS, "gain"]
    assert [row[0] for row in rows[-2:]] == ["mean IoU over 17 of 18 classes", "pixel accuracy"]
    assert len(rows) == 21
    assert rows[LEFT_OUT][0] == f"{CLASS_NAMES[LEFT_OUT]}(not in the mean)"
    assert rows[ABSENT][1:] == ["–"] * 5
    before, after = (scores_of(seed)["iou"][0] for seed in (1, 2))
    assert rows[0][2:4] == [f"{100 * before:.1f}", f"{100 * after:.1f}"]
    assert rows[0][5] == f"{100 * (after - before):+.1f}"
    assert len(found["images"]) == 10
    for width, height, alt in found["images"]:
        assert width >= 400 and height >= 100 and alt


def test_a_browser_shows_it_in_the_dark(run, shown_by_browser):
    page = run / "report.html"
    found, console = shown_by_browser(page, 1100, dark=True)
    light, _ = shown_by_browser(page, 1100)
    assert console == [] and found["overflow"] == 0
    assert (found["ground"], light["ground"]) == ("rgb(17, 20, 24)", "rgb(244, 246, 248)")
    dark_losses, losses = (
        training_curves.draw(metrics_log.read(run), CLASSES, dark=dark)["losses"]
        for dark in (True, False)
    )
    for shown, content in ((found, dark_losses), (light, losses)):
        assert shown["curve"] == len("data:image/png;base64," + base64.b64encode(content).decode())


def test_the_probe_notices_what_is_wrong(run, shown_by_browser, tmp_path):
    broken = tmp_path / "broken.html"
    mistakes = '<img src="http://localhost:9/x.png" alt=""><div style="width: 2000px">x</div>'
    text = (run / "report.html").read_text(encoding="utf-8")
    broken.write_text(text.replace("</main>", mistakes + "</main>"), encoding="utf-8")
    found, console = shown_by_browser(broken, 400)
    assert len(console) == 1 and "Content Security Policy" in console[0]
    assert found["images"][-1][0] == 0 and found["overflow"] > 1000
