"""What the package says of itself agrees with what is in it."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dasac_jax

ROOT = Path(__file__).parent.parent


@pytest.fixture
def settings(monkeypatch) -> dict[str, Any]:
    """What setup.py says; setuptools itself need not be there."""
    said: dict[str, Any] = {}
    stand_in = ModuleType("setuptools")
    stand_in.setup = lambda **settings: said.update(settings)
    stand_in.find_packages = lambda include: include
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    runpy.run_path(str(ROOT / "setup.py"))
    return said


def test_setup_takes_the_version_from_the_source(settings):
    assert (settings["name"], settings["version"]) == ("dasac-jax", dasac_jax.__version__)
    assert settings["packages"] == ["dasac_jax", "dasac_jax.*"]


def test_every_folder_with_python_files_is_a_package():
    folders = {path.parent for path in (ROOT / "dasac_jax").rglob("*.py")}
    assert [
        str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()
    ] == []


def test_imports_are_declared(settings):
    """Every third-party module is among the requirements, or is of the extra that it is for."""
    distribution = {
        "PIL": "pillow",
        "absl": "absl-py",
        "ml_collections": "ml-collections",
        "ml_dtypes": "ml-dtypes",
        "orbax": "orbax-checkpoint",
        "tensorflow_datasets": "tensorflow-datasets",
    }
    pattern = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
    imported, for_stored_sets = set(), set()
    for path in (ROOT / "dasac_jax").rglob("*.py"):
        found = pattern.findall(re.sub(r'""".*?"""', "", path.read_text(), flags=re.S))
        stored_sets = "tfds" in str(path.relative_to(ROOT))
        (for_stored_sets if stored_sets else imported).update(found)

    def third_party(modules):
        return {
            distribution.get(module, module)
            for module in modules - set(sys.stdlib_module_names) - {"dasac_jax"}
        }

    def names(lines):
        return {line.split(">=")[0] for line in lines}

    required, extra = names(settings["install_requires"]), names(settings["extras_require"]["tfds"])
    assert {"jax", "numpy"} <= third_party(imported) <= required
    assert extra <= third_party(for_stored_sets) <= required | extra


def test_only_checkpoints_use_orbax_and_what_it_offers_to_all():
    users = [p for p in (ROOT / "dasac_jax").rglob("*.py") if "import orbax" in p.read_text()]
    assert {path.parent.name for path in users} == {"checkpoints"}
    for path in users:
        found = re.findall(r"^.*\borbax\b.*$", path.read_text(), re.MULTILINE)
        imports = [line for line in found if "import" in line]
        assert imports == ["import orbax.checkpoint as ocp"], path
        assert "._src" not in path.read_text() and not re.search(r"\bocp\..* = ", path.read_text())


def test_nothing_imports_torch_or_tensorflow():
    pattern = re.compile(r"^\s*(?:from|import)\s+(torch|tensorflow)\b", re.MULTILINE)
    users = [p.name for p in (ROOT / "dasac_jax").rglob("*.py") if pattern.search(p.read_text())]
    assert users == []


def test_licence_and_citation_name_the_same_terms():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()
    assert "2105.00097" in (ROOT / "CITATION.cff").read_text()
