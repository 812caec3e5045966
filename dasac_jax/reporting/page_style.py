"""The frame and style of report.html, for narrow and wide screens, in a light and a dark scheme."""

import html
from collections.abc import Iterable

# The browser lets the page run no script and load nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f8; --card: #ffffff; --ink: #24292f; --soft: #57606a; --line: #d8dee4;
  --accent: #1f5fa8; --more: #1a7f37; --less: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #111418; --card: #1b1f24; --ink: #dfe4ea; --soft: #9aa4af; --line: #3b434c;
    --accent: #79b4f2; --more: #5cc878; --less: #ff8a80;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
header, main { max-width: 1080px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 20px 0 6px; }
p { margin: 0 0 12px; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 18px 16px; margin: 18px 0;
}
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(136px, 1fr)); gap: 12px;
  margin: 18px 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 12px 14px; }
.tiles strong { display: block; font-size: 1.7rem; line-height: 1.25; font-weight: 650; }
.tiles .chosen { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tbody th { font-weight: 400; }
.scores th { white-space: nowrap; }
.scores thead th { white-space: normal; }
small { display: block; color: var(--soft); }
tfoot th, tfoot td { font-weight: 650; }
tr:last-child > * { border-bottom: 0; }
.best { font-weight: 650; }
.more { color: var(--more); }
.less { color: var(--less); }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em;
  border: 1px solid var(--line); }
.plain td { text-align: left; overflow-wrap: anywhere; }
.plain th { white-space: nowrap; padding-right: 16px; }
figure { margin: 0 0 16px; }
img { display: block; max-width: 100%; height: auto; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr));
  gap: 14px; }
.curves figure { margin: 0; }
.scroll { overflow-x: auto; border-radius: 8px; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
figure:last-child { margin-bottom: 0; }
figcaption { margin-top: 6px; }
summary { cursor: pointer; font-weight: 600; }
details { margin-bottom: 16px; }
details:last-child { margin-bottom: 0; }
details[open] > summary { margin-bottom: 10px; }
@media (max-width: 520px) {
  body { font-size: 15px; }
  header, main { padding-left: 10px; padding-right: 10px; }
  section { padding: 14px 12px; }
  th, td { padding: 4px 2px; font-size: .8rem; }
  thead th { font-size: .68rem; }
  .dot { margin-right: .3em; }
  .plain, .plain tbody, .plain tr, .plain th, .plain td { display: block; width: 100%; }
  .plain th { border-bottom: 0; padding-bottom: 0; color: var(--soft); white-space: normal;
    overflow-wrap: anywhere; }
}
@media print { .scroll img { min-width: 0 !important; } section { break-inside: avoid; } }
"""


def document(title: str, about: str, parts: Iterable[str]) -> str:
    """A whole page. title, about: plain text, above the parts. parts: HTML."""
    title = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="soft">{html.escape(about)}</p>
</header>
<main>
{"".join(parts)}
</main>
</body>
</html>
"""
