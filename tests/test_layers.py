"""Imports are as docs/architecture.md has them: layers, one importer of BCC, a recorder without pandas."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
MODULES = sorted(TOP.glob("tracer/**/*.py"))
LAYERS = re.findall(r"^\| `tracer/(\w+)/` \|", (TOP / "docs/architecture.md").read_text(), flags=re.MULTILINE)
WAYS_IN = ("tracer/__init__.py", "tracer/__main__.py")
"""They stand above all layers, and lead to them."""


def name_of(module: Path) -> str:
    return module.relative_to(TOP).as_posix()


def layer_of(parts: tuple[str, ...]) -> int:
    """The position in `LAYERS` of what `("tracer", "kernel", "btf")` is in; what is in no folder is -1."""
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else -1


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that are imported anywhere below, also by `import_module("name")` and the like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "spec_from_file_location"):
                yield str(node.args[0].value)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """What importing the module imports: not what stands in functions, or is for the type checker."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from imports(node)


def packages(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_every_folder_is_a_layer_of_the_document() -> None:
    assert sorted(LAYERS) == sorted(path.parent.name for path in TOP.glob("tracer/*/__init__.py"))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_imports_from_no_layer_below_its_own(module: Path) -> None:
    if name_of(module) in WAYS_IN:
        return
    own = layer_of(module.relative_to(TOP).with_suffix("").parts)
    names = [name for name in imports(ast.parse(module.read_text())) if name.startswith("tracer.")]
    assert [name for name in names if layer_of(tuple(name.split("."))) > own] == []


def test_one_module_imports_bcc_and_one_matplotlib() -> None:
    importers = {
        package: [
            name_of(module)
            for module in MODULES
            if package in packages(imports(ast.parse(module.read_text())))
        ]
        for package in ("bcc", "matplotlib")
    }
    assert importers == {
        "bcc": ["tracer/capture/bpf/bcc_module.py"],
        "matplotlib": ["tracer/render/page/plots.py"],
    }


@pytest.mark.parametrize(
    "module", [*TOP.glob("tracer/kernel/*.py"), *TOP.glob("tracer/capture/*.py")], ids=name_of
)
def test_what_records_does_not_import_pandas(module: Path) -> None:
    assert "pandas" not in packages(imported_at_once(ast.parse(module.read_text())))


def test_nor_does_what_it_imports() -> None:
    script = "import sys, tracer.cli.verbs.record, tracer.capture.session; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=TOP, check=False).returncode == 0


def test_modules_are_called_by_what_they_hold() -> None:
    assert {module.stem for module in MODULES} & {
        "utils",
        "util",
        "helpers",
        "helper",
        "common",
        "misc",
    } == set()


def test_the_checks_see_what_they_are_to_find() -> None:
    """A check that finds nothing because it looks at nothing would pass as well."""
    for_types = "if TYPE_CHECKING:\n    import pandas\n"
    tree = ast.parse(f"from tracer.cli import main\n{for_types}def f():\n    import_module('bcc')\n")
    assert set(imports(tree)) == {"tracer.cli.main", "pandas", "bcc"}
    assert set(imported_at_once(tree)) == {"tracer.cli.main"}
    assert (
        layer_of(("tracer", "cli", "main"))
        > layer_of(("tracer", "kernel", "btf"))
        > layer_of(("tracer", "errors"))
    )
