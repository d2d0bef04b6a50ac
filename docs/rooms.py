"""Draw docs/rooms.svg from the code: layers, their rooms, and which layer imports from which.

`python docs/rooms.py` writes the picture, which `make pictures` does as well; tests/test_docs.py finds a
picture that is older than the code. Names come from folders, purposes from the docstrings of `__init__.py`,
dots from import statements.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[1]
PICTURE: Final = TOP / "docs" / "rooms.svg"

WIDTH: Final = 1120
MARGIN: Final = 16
NAME_WIDTH: Final = 150
DOT_STEP: Final = 22
LINE_HEIGHT: Final = 15
ROOM_WIDTH: Final = 180
ROOM_CHARACTERS: Final = 27
GAP: Final = 8
HEAD_HEIGHT: Final = 72
NAME_CHARACTERS: Final = 22
STYLE: Final = (
    "text{font-family:system-ui,sans-serif;fill:#1b1f24}"
    ".name{font-size:15px;font-weight:600}.room{font-size:13px;font-weight:600}"
    ".what{font-size:11.5px;fill:#424a53}.inside{font-size:11.5px;font-style:italic;fill:#424a53}.own{font-size:14px;fill:#8c959f}"
)
HUES: Final = (206, 188, 160, 128, 110, 92, 70, 48, 30, 12, 330, 310, 290, 260)


@dataclass(frozen=True)
class Room:
    """A folder of a layer: its purpose, the rooms inside it, and the number of its modules."""

    name: str
    purpose: str
    inside: tuple[str, ...]
    modules: int


@dataclass(frozen=True)
class Layer:
    """A folder of tracer/ with its rooms, in the order in which data flows, and the layers that it
    imports.
    """

    name: str
    purpose: str
    rooms: tuple[Room, ...]
    imports: frozenset[str]


def layers() -> list[Layer]:
    """Return the layers of docs/architecture.md, in its order."""
    text = (TOP / "docs" / "architecture.md").read_text()
    names = re.findall(r"^\| `tracer/(\w+)/` \|", text, flags=re.MULTILINE)
    return [_layer(name, names) for name in names]


def _layer(name: str, names: list[str]) -> Layer:
    folder = TOP / "tracer" / name
    docstring = _docstring(folder)
    rooms = [
        Room(f"{room}/", purpose, tuple(_folders(folder / room)), _modules(folder / room))
        for room, purpose in _listed(docstring)
        if (folder / room).is_dir()
    ]
    return Layer(
        name, docstring.partition("\n")[0].rstrip("."), tuple(rooms), _imports(folder, names) - {name}
    )


def _listed(docstring: str) -> list[tuple[str, str]]:
    """Return (name, purpose) of each line `name — purpose`, which may go on in lines that are indented
    alike.
    """
    joined = re.sub(r"\n[ \t]+(?!\w+ — )(?=\S)", " ", docstring)
    return re.findall(r"^[ \t]*(\w+) — (.+)$", joined, flags=re.MULTILINE)


def _folders(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/__init__.py"))


def _docstring(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""


def _modules(folder: Path) -> int:
    return sum(path.name != "__init__.py" for path in folder.rglob("*.py"))


def _imports(folder: Path, names: list[str]) -> frozenset[str]:
    """Return the layers that any module of `folder` imports from, also inside functions."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            found |= {target.split(".")[1] for target in targets if target.startswith("tracer.")}
    return frozenset(found & set(names))


def svg(drawn: list[Layer]) -> str:
    """Return the picture: a band a layer, a box a room, and a dot where a layer imports from an earlier
    one.
    """
    dots_left = WIDTH - MARGIN - DOT_STEP * len(drawn)
    parts = [_text(dots_left - 84, HEAD_HEIGHT - 8, "imports from", "what")]
    parts += [_column_name(layer.name, dots_left + DOT_STEP * at) for at, layer in enumerate(drawn[:-1])]
    top = HEAD_HEIGHT
    for number, layer in enumerate(drawn):
        band, height = _band(layer, top, HUES[number], dots_left)
        parts += [*band, *_dots(layer, drawn[: number + 1], dots_left, top + height // 2)]
        top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + MARGIN}" role="img" '
        f'aria-label="Layers and rooms of tracer/"><style>{STYLE}</style>\n'
        f'<rect width="{WIDTH}" height="{top + MARGIN}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _band(layer: Layer, top: int, hue: int, right: int) -> tuple[list[str], int]:
    """Return a layer's name, purpose and rooms, and the height that they take."""
    left = MARGIN + NAME_WIDTH
    x, y, row_height = left, top + GAP, 0
    boxes = []
    for room in layer.rooms:
        if x + ROOM_WIDTH > right - GAP:
            x, y, row_height = left, y + row_height + GAP, 0
        box, height = _box(room, x, y, hue)
        boxes.append(box)
        x, row_height = x + ROOM_WIDTH + GAP, max(row_height, height)
    purpose = textwrap.wrap(layer.purpose, NAME_CHARACTERS if layer.rooms else 4 * NAME_CHARACTERS)
    height = max(y + row_height + GAP - top, 26 + len(purpose) * LINE_HEIGHT + GAP)
    frame = (
        f'<rect x="{MARGIN}" y="{top}" width="{right - MARGIN - GAP}" height="{height}" rx="6" '
        f'fill="hsl({hue} 60% 95%)" stroke="hsl({hue} 40% 60%)"/>'
    )
    texts = [_text(MARGIN + 10, top + 20, f"{layer.name}/", "name")]
    texts += [
        _text(MARGIN + 10, top + 20 + at * LINE_HEIGHT, line, "what") for at, line in enumerate(purpose, 1)
    ]
    return [frame, *texts, *boxes], height


def _column_name(name: str, left: int) -> str:
    x, y = left + DOT_STEP // 2 + 4, HEAD_HEIGHT - 6
    return f'<text x="{x}" y="{y}" class="what" transform="rotate(-60 {x} {y})">{name}</text>'


def _dots(layer: Layer, until: list[Layer], left: int, y: int) -> list[str]:
    """Return a dot for each earlier layer that this one imports from, and a mark in its own column."""
    parts = []
    for column, other in enumerate(until):
        x = left + DOT_STEP * column + DOT_STEP // 2
        if other is layer:
            parts.append(_text(x - 5, y + 5, "▸", "own"))
        elif other.name in layer.imports:
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="6" fill="hsl({HUES[column]} 50% 45%)">'
                f"<title>{layer.name} imports from {other.name}</title></circle>"
            )
    return parts


def _box(room: Room, x: int, y: int, hue: int) -> tuple[str, int]:
    lines = [(line, "what") for line in textwrap.wrap(room.purpose, ROOM_CHARACTERS)]
    inside = textwrap.wrap(" ".join(f"{name}/" for name in room.inside), ROOM_CHARACTERS)
    lines += [(line, "inside") for line in inside]
    height = 28 + len(lines) * LINE_HEIGHT
    shape = (
        f'<rect x="{x}" y="{y}" width="{ROOM_WIDTH}" height="{height}" rx="4" fill="#fff" '
        f'stroke="hsl({hue} 40% 70%)"/>'
    )
    right = x + ROOM_WIDTH - 8
    count = f'<text x="{right}" y="{y + 17}" class="what" text-anchor="end">{room.modules}</text>'
    texts = [_text(x + 8, y + 17 + at * LINE_HEIGHT, line, kind) for at, (line, kind) in enumerate(lines, 1)]
    return shape + _text(x + 8, y + 17, room.name, "room") + count + "".join(texts), height


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(svg(layers()), encoding="utf-8")
