"""The documents name what exists: links, functions, configuration keys and their defaults."""

import ast
import re
from pathlib import Path

import pytest

from dasac_jax import config as recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def names(path: Path) -> set[str]:
    """Functions, classes, their members and arguments, and constants that a file defines."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and path.name == "__init__.py":
            found |= {alias.name for alias in node.names}
    return found


def rows(page: str) -> dict[str, list[str]]:
    """Table rows whose first cell is one word in backticks: {word: the other cells}."""
    found = {}
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"`[\w.]+`", cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands there twice"
            found[cells[0].strip("`")] = cells[1:]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    targets = [target for _, target in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target.split("#")[0] for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


def test_links_to_code_name_what_the_file_defines():
    links = [
        (text.strip("`"), target)
        for page in PAGES
        for text, target in LINK.findall(page.read_text(encoding="utf-8"))
        if target.endswith(".py") and re.fullmatch(r"`\w+`", text)
    ]
    assert len(links) > 40
    wrong = [
        (name, target)
        for name, target in links
        if name not in names(ROOT / target.removeprefix("../"))
    ]
    assert not wrong


def test_every_name_in_the_method_exists():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    known = set(recipe.flatten(recipe.base()))
    known |= {"align_corners=False"}  # PyTorch's
    known |= {"pixel", "batch", "none", "average", "minentropy", "best", "last", "synthia"}
    for path in (ROOT / "dasac_jax").rglob("*.py"):
        known |= names(path)
    assert not set(re.findall(r"`([^`]+)`", text)) - known


def test_paths_of_the_package_exist():
    for page in PAGES:
        for path in re.findall(
            r"(?:dasac_jax|configs|scripts)/[\w/]+\.\w+", page.read_text(encoding="utf-8")
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_configuration_lists_every_key_with_its_default():
    config = recipe.base()
    with config.unlocked():
        config.demo = recipe.demo_data()
    defaults = recipe.flatten(config)
    table = {key: cells for key, cells in rows("configuration.md").items() if key in defaults}
    assert table.keys() == defaults.keys()
    written = {key: ast.literal_eval(cells[-1].strip("`")) for key, cells in table.items()}
    assert written == defaults


def test_configuration_lists_no_other_key():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = "|".join(("data", "optimiser", "baseline", "adapt", "demo"))
    known = recipe.flatten(recipe.base()) | recipe.flatten({"demo": recipe.demo_data()})
    assert set(re.findall(rf"`((?:{sections})\.\w+)`", text)) <= known.keys()
