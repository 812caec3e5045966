"""The page of docs/browser segments a picture in a browser and asks for nothing from elsewhere."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dasac_jax
from dasac_jax.export import command

ROOT = Path(__file__).parents[2]
SECONDS = 60  # for the browser to start and to answer
# Written into a copy of the page, which sends what it finds to the server that it came from.
PROBE = """<script>
new MutationObserver(() => {
  const said = document.getElementById("status").textContent;
  if (!/^(Done|Failed|Choose)/.test(said)) return;
  const canvas = document.getElementById("colours"), {width, height} = canvas;
  const drawn = width && height ? canvas.getContext("2d").getImageData(0, 0, width, height) : {};
  fetch("found", {method: "POST", body: JSON.stringify({
    said, width, height, drawn: [...drawn.data ?? []],
    legend: [...document.querySelectorAll("#legend li")].map(x => x.textContent),
    fetched: performance.getEntriesByType("resource").map(x => x.name),
  })});
}).observe(document.getElementById("status"), {childList: true});
</script>"""


@pytest.fixture
def page(onnxruntime_web, demo_checkpoint, tmp_path):
    """A folder with the page, as scripts/browser_page.sh makes it, and a picture."""
    folder = tmp_path / "page"
    command.main([str(demo_checkpoint), str(folder / "network.onnx")])
    for file in onnxruntime_web.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    text = (ROOT / "docs" / "browser" / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    pixels = (
        np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    Image.fromarray(pixels).save(folder / "street.png")
    return folder


@pytest.fixture
def shown(browser, browser_environment, tmp_path):
    """A function: folder, address below it → what the page told, and what was asked for."""

    def open_it(folder: Path, address: str):
        asked, told, answered = [], [], threading.Event()

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(folder))

            def do_POST(self):
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()
                if not told[-1]["said"].startswith("Choose"):
                    answered.set()

            def log_request(self, *_):
                asked.append(self.path)

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            place = f"http://127.0.0.1:{server.server_port}/"
            process = subprocess.Popen(
                [
                    browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update",
                    "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
                    "--remote-debugging-port=0", place + address,
                ],
                env=browser_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                assert answered.wait(SECONDS), f"the page told {told}"
            finally:
                process.terminate()
                process.wait()
                server.shutdown()
        return place, told[-1], asked

    return open_it


def test_it_segments_a_picture(page, shown, demo_checkpoint):
    place, found, asked = shown(page, "index.html?image=street.png")
    assert found["said"].startswith("Done in ")
    network = dasac_jax.load(demo_checkpoint)
    with Image.open(page / "street.png") as image:
        labels, _ = network.predict(np.asarray(image))
    drawn = np.array(found["drawn"], np.uint8).reshape(found["height"], found["width"], 4)
    expected = network.palette[labels]
    assert (drawn[..., :3] == expected).all(-1).mean() >= 0.999 and (drawn[..., 3] == 255).all()
    ids, counts = np.unique(labels, return_counts=True)
    assert len(ids) > 1 and len(found["legend"]) == len(ids)
    assert found["legend"][0].startswith(network.class_names[ids[counts.argmax()]])
    assert all(name.startswith(place) for name in found["fetched"])
    assert "/network.onnx" in asked and "/ort-wasm-simd-threaded.wasm" in asked


def test_it_says_what_is_missing(page, shown):
    (page / "network.onnx").unlink()
    _, found, _ = shown(page, "index.html")
    assert found["said"] == "Failed: network.onnx is not beside this page"
