"""The order of imports: layers, rooms within layers, no circle; and the sizes of files.

The order of the layers is the table in docs/architecture.md. The order of the rooms of a folder is the list
in the docstring of its `__init__.py`, a line each: `room — what it holds`. A room imports only from rooms
before it in that list. Modules of the folder that are not in the list come after all of its rooms: they
import from any room, and no room imports from them. A module from which rooms do import is in the list.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

TOP: Final = Path(__file__).parents[1]
MODULES: Final = sorted(TOP.glob("tracer/**/*.py"))
FOLDERS: Final = sorted({module.parent for module in MODULES})
RECORDER: Final = [
    *TOP.glob("tracer/kernel/**/*.py"),
    *TOP.glob("tracer/capture/**/*.py"),
]
"""Modules that a recorder loads, which must start fast."""

DOCUMENT: Final = (TOP / "docs/architecture.md").read_text()
LAYERS: Final = re.findall(r"^\| `tracer/(\w+)/` \|", DOCUMENT, flags=re.MULTILINE)
OF_NO_PACKAGE: Final = frozenset({"tracer", "_typeshed"})
"""Imports of the project itself, and of what only the type checker has."""

WAYS_IN: Final = ("tracer/__init__.py", "tracer/__main__.py")
"""Modules that stand above all layers, and lead to them."""

SAME_MEANING: Final[Mapping[str, str]] = {
    "evictions": "a verb, and the view that it prints",
    "timeline": "a verb, and the view that it draws",
}
"""Names that several modules have -> why they mean one thing."""

STARTING_CALLS: Final = r"subprocess\.(Popen|run|call|check_)|os\.(exec|spawn|posix_spawn|system$|popen$)"
STARTING_IMPORTS: Final = (
    r"multiprocessing($|\.(Process|Pool|get_context|context|pool|spawn))|concurrent\.futures\.[Pp]rocess|"
    r"joblib|loky|distributed\.(LocalCluster|Nanny)|(subprocess|os)\.|sys\.executable"
)
STARTERS: Final[Mapping[str, set[str]]] = {
    # The one way to start Python, which the modules after it use.
    "tracer/kernel/process/children.py": {"sys.executable", "subprocess.Popen", "os.execve"},
    "tracer/kernel/naming/cri_socket.py": {"subprocess.run"},
    "tracer/kernel/process/spawn.py": {"subprocess.Popen", "sys.executable"},  # an error names it
    "tracer/watch/child.py": {"subprocess.Popen"},
    # Programs that are no Python, or that the user named.
    "tracer/capture/bpf/compiled/compiler.py": {"subprocess.run"},
    "tracer/capture/learn/stimuli.py": {"os.posix_spawn"},
    "tracer/kernel/kmsg/this_machine.py": {"subprocess.Popen"},
    "tracer/kernel/process/gate.py": {"os.execvpe"},
    # A copy of the interpreter, with -P; and a path to print.
    "tracer/lab/workload/steps.py": {"os.execv"},
    "tracer/cli/verbs/printed/unit.py": {"sys.executable"},
    # kubectl and the installed memcg-tracer, from the user's own PATH, which kubectl searches for this file.
    "tracer/cli/kubectl_oom.py": {"subprocess.run"},
}
"""Modules that start processes, or have the interpreter's path."""

MOST_LINES: Final = 600


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def dotted(module: Path) -> str:
    parts = module.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(parts: tuple[str, ...]) -> int:
    """Return the position in `LAYERS` of the layer of ("tracer", "kernel", "btf"), or -1 for no layer."""
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else -1


def imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the dotted names that nodes import, by `import_module("name")` and the like as well."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "spec_from_file_location"):
                yield str(node.args[0].value)


@cache
def seen_in(module: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what a module imports anywhere, and the ways in which it starts processes; parse it once."""
    nodes = [*ast.walk(ast.parse(module.read_text()))]
    return tuple(imports(nodes)), frozenset(starts(nodes))


def imported_by(module: Path) -> tuple[str, ...]:
    """Return what a module imports anywhere."""
    return seen_in(module)[0]


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Yield what importing the module imports: nothing in functions, nothing for the type checker."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from imports(ast.walk(node))


def packages(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@cache
def graph() -> Mapping[str, frozenset[str]]:
    """Return module -> the modules of the project that it imports, by their dotted names."""
    names = frozenset(map(dotted, MODULES))

    def module_of(name: str) -> str:
        return name if name in names else name.rpartition(".")[0]

    return {dotted(module): frozenset(map(module_of, imported_by(module))) & names for module in MODULES}


def rooms_of(docstring: str | None) -> list[str]:
    """Return the rooms that the docstring of a folder lists, the lowest first."""
    return re.findall(r"^ *(\w+) — \S", docstring or "", flags=re.MULTILINE)


def docstring_of(folder: Path) -> str | None:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False)


def out_of_order(folder: str, rooms: list[str], imported: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the imports within a folder that go from a room to one that is not below it."""

    def child_of(name: str) -> str | None:
        inside = name.removeprefix(folder + ".")
        return None if inside == name else inside.partition(".")[0]

    ranks = {room: rank for rank, room in enumerate(rooms)}
    found = []
    for importer, names in imported.items():
        for name in names:
            above, below = child_of(importer), child_of(name)
            if above is None or below is None or above == below:
                continue
            if ranks.get(below, len(rooms)) >= ranks.get(above, len(rooms) + 1):
                found.append(f"{importer} imports {name}")
    return sorted(found)


def circles(imported: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Return the sets of modules that import each other, directly or through others."""

    def reached_from(start: str) -> set[str]:
        found, ahead = set[str](), [start]
        while ahead:
            new = imported[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    reached = {name: reached_from(name) for name in imported}
    rings = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in imported
        if name in reached[name]
    }
    return [list(ring) for ring in sorted(rings)]


def test_every_folder_of_tracer_is_a_layer_of_the_document() -> None:
    assert sorted(LAYERS) == sorted(path.parent.name for path in TOP.glob("tracer/*/__init__.py"))


def test_every_folder_of_tracer_is_a_package_of_the_distribution() -> None:
    listed = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(set(listed) - {"tracer.bpf"}) == [name_of(folder).replace("/", ".") for folder in FOLDERS]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_module_imports_from_no_layer_above_its_own(module: Path) -> None:
    if name_of(module) in WAYS_IN:
        return
    own = layer_of(module.relative_to(TOP).with_suffix("").parts)
    names = [name for name in imported_by(module) if name.startswith("tracer.")]
    assert [name for name in names if layer_of(tuple(name.split("."))) > own] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_folder_begins_with_a_line_on_what_it_holds(folder: Path) -> None:
    first = (docstring_of(folder) or "").partition("\n")[0]
    assert first.endswith((".", "?"))


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=name_of)
def test_folder_lists_its_rooms(folder: Path) -> None:
    rooms = rooms_of(docstring_of(folder))
    there = {path.parent.name for path in folder.glob("*/__init__.py")}
    modules = {path.stem for path in folder.glob("*.py")}
    assert [f"{name_of(folder)}/{room}" for room in sorted(there - set(rooms))] == []
    assert set(rooms) - there - modules == set()
    assert len(rooms) == len(set(rooms))


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=name_of)
def test_room_imports_only_from_rooms_below_it(folder: Path) -> None:
    rooms = rooms_of(docstring_of(folder))
    assert out_of_order(dotted(folder), rooms, graph()) == []


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports in functions and those for the type checker count as well."""
    assert circles(graph()) == []


def test_modules_of_one_name_have_one_meaning() -> None:
    counts = Counter(module.stem for module in MODULES if module.stem not in ("__init__", "__main__"))
    repeated = {name for name, count in counts.items() if count > 1}
    assert sorted(repeated - set(SAME_MEANING)) == []
    assert set(SAME_MEANING) - repeated == set()


def test_files_have_at_most_600_lines() -> None:
    files = [path for top in ("tracer", "bpf", "tests") for path in sorted((TOP / top).rglob("*"))]
    code = [path for path in files if path.suffix in (".py", ".c", ".h")]
    lines = {name_of(path): len(path.read_text().splitlines()) for path in code}
    del lines["bpf/events.h"]  # it is generated
    assert {"tracer/schema.py", "bpf/oom.bpf.c", "tests/test_layers.py"} <= set(lines)
    assert [name for name, count in lines.items() if count > MOST_LINES] == []


def test_only_these_modules_import_bcc_and_matplotlib() -> None:
    importers = {
        package: [name_of(module) for module in MODULES if package in packages(imported_by(module))]
        for package in ("bcc", "matplotlib")
    }
    assert importers == {
        "bcc": ["tracer/capture/bpf/compiled/bcc_module.py"],
        "matplotlib": [
            "tracer/render/fit/curve.py",
            "tracer/render/plot/axes_style.py",
            "tracer/render/plot/cushion_area.py",
            "tracer/render/plot/eviction_bars.py",
            "tracer/render/plot/limit_curve.py",
            "tracer/render/plot/over_time.py",
            "tracer/render/plot/pictures.py",
            "tracer/render/plot/waterfall.py",
        ],
    }


def starts(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the ways in which nodes start processes, and "sys.executable" for the interpreter's path."""
    found = set[str]()
    for node in nodes:
        called = node.func if isinstance(node, ast.Call) else node
        if isinstance(called, ast.Attribute):
            name = f"{getattr(called.value, 'id', '')}.{called.attr}"
            if name == "sys.executable" or (called is not node and re.match(STARTING_CALLS, name)):
                found.add(name)
    return found | {name for name in imports(nodes) if re.match(STARTING_IMPORTS, name)}


def test_only_one_module_starts_python() -> None:
    """Root may stand in a directory of anybody, where `sys.executable` without `-P` looks for modules."""
    found = {name_of(module): seen_in(module)[1] for module in MODULES}
    assert {name: ways for name, ways in found.items() if ways} == STARTERS
    unsafe = "import multiprocessing, sys, os\nos.execv(sys.executable, [])\nfrom subprocess import run\n"
    assert starts([*ast.walk(ast.parse(unsafe))]) == {
        "multiprocessing",
        "os.execv",
        "sys.executable",
        "subprocess.run",
    }


@pytest.mark.parametrize("module", RECORDER, ids=name_of)
def test_module_of_kernel_or_capture_does_not_import_pandas(module: Path) -> None:
    assert "pandas" not in packages(imported_at_once(ast.parse(module.read_text())))


@pytest.mark.parametrize("layer", LAYERS)
def test_third_party_packages_of_a_layer_are_those_of_the_document(layer: str) -> None:
    modules = TOP.glob(f"tracer/{layer}/**/*.py")
    imported = set[str]().union(*(packages(imported_by(module)) for module in modules))
    (cell,) = re.findall(rf"^\| `tracer/{layer}/` \|.*\| ([^|]*)\|$", DOCUMENT, flags=re.MULTILINE)
    named = {name for part in re.split("[,;]", cell) for name in part.split()[:1]}
    assert imported - sys.stdlib_module_names - OF_NO_PACKAGE == named


def test_import_of_the_recorder_does_not_load_pandas() -> None:
    modules = "tracer.capture.session, tracer.watch.watching"
    script = f"import sys, {modules}; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=TOP, check=False).returncode == 0


def test_import_of_the_recorder_leaves_numpy_and_arrow_for_later() -> None:
    """They are imported while the programs are compiled, after their settings are in the environment."""
    script = (
        "import sys, tracer.cli.verbs.record, tracer.cli.verbs.watch, tracer.capture.session\n"
        "print(*{'numpy', 'pandas', 'pyarrow'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=TOP, check=True, capture_output=True)
    assert found.stdout.split() == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert {module.stem for module in MODULES} & empty == set()


def test_imports_are_seen_wherever_they_stand() -> None:
    """This makes sure that the checks above look at all imports."""
    for_types = "if TYPE_CHECKING:\n    import pandas\n"
    tree = ast.parse(f"from tracer.cli import main\n{for_types}def f():\n    import_module('bcc')\n")
    assert set(imports(ast.walk(tree))) == {"tracer.cli.main", "pandas", "bcc"}
    assert set(imported_at_once(tree)) == {"tracer.cli.main"}
    assert (
        layer_of(("tracer", "cli", "main"))
        > layer_of(("tracer", "kernel", "btf"))
        > layer_of(("tracer", "errors"))
    )
    ways_in = {"tracer.errors", "tracer.version", "tracer.fleet", "tracer.render.plot.opened_trace"}
    assert graph()["tracer"] == ways_in
    assert "tracer.analysis.core.columns" in graph()["tracer.analysis.core.rows"]
    folders = {name_of(module.parent) for module in RECORDER}
    assert {"tracer/kernel", "tracer/kernel/kmsg/report", "tracer/capture", "tracer/capture/bpf"} <= folders


def test_imports_against_the_order_of_rooms_are_found() -> None:
    rooms = rooms_of("A house.\n\n    base — at the bottom\n    cellar — below\n    attic — above\n")
    assert rooms == ["base", "cellar", "attic"]
    imported = {
        "house.cellar.box": frozenset({"house.attic.box", "house.base", "house.roof", "house.cellar.rack"}),
        "house.attic.box": frozenset({"house.cellar.box"}),
        "house.roof": frozenset({"house.attic.box", "house.door"}),
        "house.base": frozenset({"house.cellar.box", "elsewhere"}),
    }
    assert out_of_order("house", rooms, imported) == [
        "house.base imports house.cellar.box",
        "house.cellar.box imports house.attic.box",
        "house.cellar.box imports house.roof",
    ]


def test_circles_are_found_at_any_length() -> None:
    imported = {
        "a": frozenset({"b"}),
        "b": frozenset({"c"}),
        "c": frozenset({"a"}),
        "d": frozenset({"a", "e"}),
        "e": frozenset[str](),
    }
    assert circles(imported) == [["a", "b", "c"]]
