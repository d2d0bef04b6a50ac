"""`python tests/support/lowest.py` prints the lower bounds of pyproject.toml, as constraints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
FURTHER = ("pyparsing<3.3",)
"""Bounds of packages that old ones need: matplotlib 3.8 calls what pyparsing 3.3 deprecates."""


def constraints() -> Iterator[str]:
    """Yield `name==version` for each package that users or tests need; tools of `lint` follow no bound.

    Of two bounds, the higher one holds: all packages are installed together.
    """
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(line for extra in extras if extra != "lint" for line in extras[extra]),
    ]
    bounds: dict[str, tuple[tuple[int, ...], str]] = {}
    for line in asked:
        name, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        bound = tuple(map(int, version.split("."))), version
        bounds[name] = max(bounds.get(name, bound), bound)
    yield from (f"{name}=={version}" for name, (_, version) in bounds.items())


if __name__ == "__main__":
    print(*constraints(), *FURTHER, sep="\n")
