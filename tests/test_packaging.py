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


def test_files_that_are_no_modules_are_installed_too(settings):
    package = ROOT / "dasac_jax"
    declared = {
        path
        for name, patterns in settings["package_data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*name.split(".")).glob(pattern)
    }
    there = {path for path in package.rglob("*.*") if path.is_file() and path.suffix == ".csv"}
    assert there == declared and len(there) > 5


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
    places = {"tfds": "tfds", "export": "dasac_jax/export/"}  # what paths contain
    imported, of_extra = set(), {extra: set() for extra in places}
    for path in (ROOT / "dasac_jax").rglob("*.py"):
        found = pattern.findall(re.sub(r'""".*?"""', "", path.read_text(), flags=re.S))
        relative = path.relative_to(ROOT).as_posix()
        extra = next((extra for extra, part in places.items() if part in relative), None)
        of_extra.get(extra, imported).update(found)

    def third_party(modules):
        return {
            distribution.get(module, module)
            for module in modules - set(sys.stdlib_module_names) - {"dasac_jax"}
        }

    def names(lines):
        return {line.split(">=")[0] for line in lines}

    required = names(settings["install_requires"])
    assert {"jax", "numpy"} <= third_party(imported) <= required
    # JAX imports flatbuffers when it writes a program.
    for_others = {"tfds": set(), "export": {"flatbuffers"}}
    for extra, modules in of_extra.items():
        declared = names(settings["extras_require"][extra])
        assert declared <= third_party(modules) | for_others[extra] <= required | declared


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
