"""The rooms of the package and their layers, see docs/architecture.md: read from the imports."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dasac_jax"
LAYERS = (
    "errors files version",
    "models image runtime cli",
    "method data data.demo data.preparation data.tfds checkpoints",
    "config recipe_flags reporting",
    "inference",
    "evaluation export interop interop.torch_files interop.downloads",
    "training",
    "main predict evaluate own_data __init__",
)  # the lowest first: a module imports from its own layer and from lower ones
LAYER = {room: i for i, rooms in enumerate(LAYERS) for room in rooms.split()}

Graph = dict[str, set[str]]


def imports() -> Graph:
    """What each module of the package imports of it, inside functions too."""
    paths = {
        path.relative_to(PACKAGE.parent).with_suffix(""): path for path in PACKAGE.rglob("*.py")
    }
    modules = {".".join(place.parts): path for place, path in paths.items()}
    graph: Graph = {name.removeprefix("dasac_jax."): set() for name in modules}
    for name, path in modules.items():
        asked = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                asked += [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                asked += [(node.module, alias.name) for alias in node.names]
        for module, thing in asked:
            # A module, a room, or something that a module or a room holds: the first that exists.
            meant = [
                f"{module}.{thing}",
                f"{module}.{thing}.__init__",
                module,
                f"{module}.__init__",
            ]
            found = [one.removeprefix("dasac_jax.") for one in meant if one in modules][:1]
            graph[name.removeprefix("dasac_jax.")].update(found)
    return graph


def room(module: str) -> str:
    """The folder of a module; modules at the top stand for themselves."""
    return module.rpartition(".")[0] or module


def in_cycles(graph: Graph) -> set[str]:
    """What is left when everything that needs nothing that is left has been taken away."""
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & left.keys() - {name}]:
        for name in free:
            del left[name]
    return set(left)


def test_imports_run_downwards_and_in_no_circle():
    graph = imports()
    rooms: Graph = {}
    for name, needs in graph.items():
        rooms.setdefault(room(name), set()).update(map(room, needs))
    assert sorted(rooms) == sorted(LAYER), "a room or module at the top that no layer names"
    upwards = {(a, b) for a in graph for b in graph[a] if LAYER[room(a)] < LAYER[room(b)]}
    assert upwards == set()
    assert in_cycles(graph) == set()
    assert in_cycles(rooms) == set()


def test_few_modules_stand_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 10
