"""Symbols of Rust as a program writes the names: both ways of mangling, without hashes of crates.

The older way (rustc_symbol_mangling/src/legacy.rs) is that of C++ with escapes, and is read as C++ when it is
recorded. The newer way, v0, is a grammar of its own (RFC 2603, and "v0 Symbol Format" in the book of rustc).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_V0: Final = "_R"
_MOST_STEPS: Final = 2048
"""The most parts of a name that are read: a reference to an earlier part reads it again, and such references
can nest."""
_MOST_DEPTH: Final = 96
_MOST_CHARACTERS: Final = 4096
_DIGITS: Final = {
    character: value
    for value, character in enumerate("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}
_BASIC: Final = {
    **{"a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize"},
    **{"j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16"},
    **{"u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!"},
}
_SIGNED: Final = frozenset("aslxni")
_UNSIGNED: Final = frozenset("htmyoj")
_SPECIAL: Final = {"C": "closure", "S": "shim"}
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,5}")
_HEX: Final = re.compile(r"(?:0|[1-9a-f][0-9a-f]{0,31})?_")

_BRACKET: Final = re.compile(r"->|<|>| as ")

_LEGACY_HASH: Final = re.compile(r"::h[0-9a-f]{16}$")
_ESCAPE: Final = re.compile(r"\$(?:u(?P<code>[0-9a-f]{2})|(?P<name>SP|BP|RF|LT|GT|LP|RP|C))\$|\.\.")
_CHARACTERS: Final = {
    **{"SP": "@", "BP": "*", "RF": "&", "LT": "<"},
    **{"GT": ">", "LP": "(", "RP": ")", "C": ","},
}


def name_of(symbol: str) -> str | None:
    """Return the name that a symbol of Rust stands for; None for any other symbol, and for one that is not
    whole or has parts that are not known here."""
    if _LEGACY_HASH.search(symbol):
        return _ESCAPE.sub(_escaped, _LEGACY_HASH.sub("", symbol)).replace("_<", "<", 1)
    if not (symbol.startswith(_V0) and symbol.isascii()):
        return None
    try:
        return _V0Name(symbol.removeprefix(_V0)).read()
    except (_UnknownError, ValueError, OverflowError):  # the last two are of Punycode
        return None


def implemented(name: str) -> tuple[str, ...]:
    """Return the type, and the trait if there is one, of `<type as trait>::function`."""
    depth, begin, found = 0, 1, []
    for mark in _BRACKET.finditer(name):
        depth += {"<": 1, ">": -1}.get(mark[0], 0)
        if depth == 0 or (depth == 1 and mark[0] == " as "):
            found.append(name[begin : mark.start()])
            begin = mark.end()
        if depth == 0:
            break
    return tuple(found) or (name,)


def _escaped(escape: re.Match[str]) -> str:
    if escape["code"]:
        return chr(int(escape["code"], 16))
    return _CHARACTERS[escape["name"]] if escape["name"] else "::"


class _UnknownError(Exception):
    """The symbol is damaged, too long, or newer than this reader."""


class _V0Name:
    """A reader of one symbol. Each method reads the part that its name says, and returns it in words."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._steps = 0
        self._depth = 0
        self._lifetimes = 0  # that the binders around this part have named

    def read(self) -> str:
        if self._is_next("0123456789"):
            raise _UnknownError  # a version of the encoding: none is defined
        name = self._path(is_value=True)
        if self._text[self._at : self._at + 1].isupper():
            self._path(is_value=False)  # the crate for which generic code was compiled
        if self._at < len(self._text) and self._text[self._at] not in ".$":
            raise _UnknownError
        return name

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise _UnknownError
        self._at += 1
        return self._text[self._at - 1]

    def _is_next(self, characters: str) -> bool:
        return self._at < len(self._text) and self._text[self._at] in characters

    def _took(self, character: str) -> bool:
        """Read a character if it is the next one, and return whether it was."""
        is_next = self._is_next(character)
        self._at += is_next
        return is_next

    def _number62(self) -> int:
        value = 0
        if self._took("_"):
            return 0
        while (character := self._next()) != "_":
            if character not in _DIGITS or value >> 64:
                raise _UnknownError
            value = value * 62 + _DIGITS[character]
        return value + 1

    def _optional62(self, mark: str) -> int:
        return self._number62() + 1 if self._took(mark) else 0

    def _nested(self, part: Callable[[], str]) -> str:
        """Read a part within another one."""
        self._steps += 1
        self._depth += 1
        if self._steps > _MOST_STEPS or self._depth > _MOST_DEPTH:
            raise _UnknownError
        name = part()
        self._depth -= 1
        if len(name) > _MOST_CHARACTERS:
            raise _UnknownError
        return name

    def _again(self, part: Callable[[], str]) -> str:
        """Read a part that is written at an earlier place."""
        mark = self._at - 1
        place = self._number62()
        if place >= mark:
            raise _UnknownError
        back, self._at = self._at, place
        name = self._nested(part)
        self._at = back
        return name

    def _until_end(self, part: Callable[[], str]) -> list[str]:
        found = []
        while not self._took("E"):
            found.append(self._nested(part))
        return found

    def _identifier(self) -> tuple[str, int]:
        """Return a name and its number among those of the same name."""
        number = self._optional62("s")
        return self._plain_identifier(), number

    def _plain_identifier(self) -> str:
        is_unicode = self._took("u")
        digits = _NUMBER.match(self._text, self._at)
        if digits is None:
            raise _UnknownError
        self._at = digits.end()
        self._took("_")
        end = self._at + int(digits[0])
        if end > len(self._text):
            raise _UnknownError
        word, self._at = self._text[self._at : end], end
        if not is_unicode:
            return word
        plain, _, coded = word.rpartition("_")
        return f"{plain}-{coded}".removeprefix("-").encode("ascii").decode("punycode")

    def _path(self, *, is_value: bool) -> str:
        return self._nested(lambda: self._any_path(self._next(), is_value=is_value))

    def _any_path(self, kind: str, *, is_value: bool) -> str:
        match kind:
            case "C":
                return self._identifier()[0]
            case "M" | "X" | "Y":
                if kind != "Y":
                    self._optional62("s")
                    self._path(is_value=False)  # the place of the `impl`
                own = self._type()
                return f"<{own}>" if kind == "M" else f"<{own} as {self._path(is_value=False)}>"
            case "N":
                return self._member(is_value=is_value)
            case "I":
                name = self._path(is_value=is_value)
                arguments = self._until_end(self._argument)
                return f"{name}{'::' if is_value else ''}<{', '.join(arguments)}>"
            case "B":
                return self._again(lambda: self._path(is_value=is_value))
        raise _UnknownError

    def _member(self, *, is_value: bool) -> str:
        space = self._next()
        if not space.isalpha():
            raise _UnknownError
        inside = self._path(is_value=is_value)
        name, number = self._identifier()
        if space.isupper():
            named = f":{name}" if name else ""
            return f"{inside}::{{{_SPECIAL.get(space, space)}{named}#{number}}}"
        return f"{inside}::{name}" if name else inside

    def _argument(self) -> str:
        if self._took("L"):
            return self._lifetime(self._number62())
        return self._constant() if self._took("K") else self._type()

    def _lifetime(self, number: int) -> str:
        if number == 0:
            return "'_"
        depth = self._lifetimes - number
        if depth < 0:
            raise _UnknownError
        return f"'{chr(ord('a') + depth)}" if depth < 26 else f"'_{depth}"

    def _bound(self, part: Callable[[], str]) -> str:
        """Read a part within which lifetimes have names, if it begins with their number."""
        before = self._lifetimes
        number = self._optional62("G")
        if number > _MOST_DEPTH:
            raise _UnknownError
        named = []
        for _ in range(number):
            self._lifetimes += 1
            named.append(self._lifetime(1))
        name = part()
        self._lifetimes = before
        return f"for<{', '.join(named)}> {name}" if named else name

    def _type(self) -> str:
        return self._nested(self._any_type)

    def _any_type(self) -> str:
        kind = self._next()
        match kind:
            case "R" | "Q":
                number = self._number62() if self._took("L") else 0
                lifetime = f"{self._lifetime(number)} " if number else ""
                name = f"&{lifetime}{'mut ' if kind == 'Q' else ''}{self._type()}"
            case "P" | "O":
                name = f"*{'const' if kind == 'P' else 'mut'} {self._type()}"
            case "A":
                name = f"[{self._type()}; {self._constant()}]"
            case "S":
                name = f"[{self._type()}]"
            case "T":
                parts = self._until_end(self._type)
                name = f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
            case "F":
                name = self._bound(self._function)
            case "D":
                name = self._dynamic()
            case "B":
                name = self._again(self._type)
            case _:
                name = _BASIC.get(kind) or self._any_path(kind, is_value=False)
        return name

    def _function(self) -> str:
        safety = "unsafe " if self._took("U") else ""
        interface = ""
        if self._took("K"):
            name = "C" if self._took("C") else self._plain_identifier().replace("_", "-")
            interface = f'extern "{name}" '
        takes = ", ".join(self._until_end(self._type))
        returns = "" if self._took("u") else f" -> {self._type()}"
        return f"{safety}{interface}fn({takes}){returns}"

    def _dynamic(self) -> str:
        traits = self._bound(lambda: " + ".join(self._until_end(self._trait)))
        if not self._took("L"):
            raise _UnknownError
        number = self._number62()
        return f"dyn {traits}{f' + {self._lifetime(number)}' if number else ''}"

    def _trait(self) -> str:
        name = self._path(is_value=False)
        bindings = []
        while self._took("p"):
            bindings.append(f"{self._plain_identifier()} = {self._type()}")
        if not bindings:
            return name
        begin = f"{name[:-1]}, " if name.endswith(">") else f"{name}<"
        return f"{begin}{', '.join(bindings)}>"

    def _constant(self) -> str:
        return self._nested(self._any_constant)

    def _any_constant(self) -> str:
        kind = self._next()
        if kind == "p":
            return "_"
        if kind == "B":
            return self._again(self._constant)
        sign = "-" if kind in _SIGNED and self._took("n") else ""
        found = _HEX.match(self._text, self._at)
        if found is None:
            raise _UnknownError
        self._at = found.end()
        value = int(found[0][:-1] or "0", 16)
        if kind in _SIGNED or kind in _UNSIGNED:
            return f"{sign}{value}"
        if kind == "b" and value < 2:
            return "true" if value else "false"
        if kind == "c" and value < 0x110000:
            return repr(chr(value))
        raise _UnknownError
