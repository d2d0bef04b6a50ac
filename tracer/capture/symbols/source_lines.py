"""Lines of native code, and the functions that a compiler has inlined there, by the DWARF of a mapped file.

In optimised code, one address belongs to several functions: `push_back` inlined into `load_rows`, inlined
into `main`. The symbol is that of `main`, and the line would be in a header of the standard library. So each
of these functions is a frame of its own, with the line at which it runs or calls the next one.

Only what the file itself contains is read (`-g`; Go by default), no file of debug information beside it. The
file may name another one by any path (.gnu_debugaltlink), which libdw would open in the recorder's root: a
pipe, or a device. So this process can open no file meanwhile.
"""

from __future__ import annotations

import ctypes
import re
import resource
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tracer.capture.symbols.address_names import SourceFrame

_MOST_CPU_S: Final = 2.0  # of a process; some 10,000 addresses
_MOST_INLINED: Final = 32  # at one address
_MOST_SCOPES: Final = 1024
_MOST_ENTRIES: Final = 1 << 14  # beside those that enclose an address
_MOST_FUNCTIONS: Final = 1 << 17  # of a unit
_MOST_RANGES: Final = 64  # of a function
_MOST_FILES: Final = 1 << 20  # of a unit
_LONGEST_FILE: Final = 200

_INLINED_SUBROUTINE, _SUBPROGRAM = 0x1D, 0x2E  # DW_TAG_* (dwarf.h)
_ENCLOSING_NAMES: Final = (0x02, 0x13, 0x17, 0x39)  # DW_TAG_class_type, structure_type, union_type, namespace
_LINKAGE_NAME, _CALL_FILE, _CALL_LINE = 0x6E, 0x58, 0x59  # DW_AT_*
_ABSTRACT_ORIGIN, _SPECIFICATION = 0x31, 0x47

_STANDARD_LIBRARY: Final = re.compile(r".*/(?:include/(?:[\w.-]+/)?c\+\+/[^/]+/|rustc/[0-9a-f]{40}/library/)")

_RUST_V0: Final = "_R"
"""How symbols begin that are mangled as in RFC 2603 of Rust: __cxa_demangle does not know them."""

_Pointer = ctypes.c_void_p
_Word = ctypes.c_uint64


class _Die(ctypes.Structure):
    """Dwarf_Die (libdw.h)."""

    _fields_ = (("addr", _Pointer), ("cu", _Pointer), ("abbrev", _Pointer), ("padding", ctypes.c_long))


class _Attribute(ctypes.Structure):
    """Dwarf_Attribute (libdw.h)."""

    _fields_ = (("code", ctypes.c_uint), ("form", ctypes.c_uint), ("valp", _Pointer), ("cu", _Pointer))


_Dies = ctypes.POINTER(_Die)
_OnFunction = ctypes.CFUNCTYPE(ctypes.c_int, _Dies, _Pointer)


class _Functions:
    """The functions of a unit that its list has, by address: those of classes and namespaces are in it if the
    compiler puts their code beside them, as GCC does."""

    def __init__(self, dw: ctypes.CDLL, unit: Any) -> None:
        self._dw = dw
        self._dies: list[_Die] = []
        ranges: list[tuple[int, int, int]] = []

        def take(die: Any, _: int | None) -> int:
            for begin, end in self._ranges(die):
                ranges.append((begin, end, len(self._dies)))
            self._dies.append(_Die.from_buffer_copy(die.contents))
            return int(len(self._dies) >= _MOST_FUNCTIONS)

        dw.dwarf_getfuncs(unit, _OnFunction(take), None, ctypes.c_ssize_t(0))
        self._sorted = sorted(ranges)
        self._begins = [begin for begin, _, _ in self._sorted]

    def at(self, address: int) -> _Die | None:
        position = bisect_right(self._begins, address) - 1
        if position < 0:
            return None
        _, end, number = self._sorted[position]
        return self._dies[number] if address < end else None

    def _ranges(self, die: Any) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the code of a function; nothing if it is inlined or declared only."""
        base, begin, end = _Word(), _Word(), _Word()
        offset = 0
        for _ in range(_MOST_RANGES):
            offset = self._dw.dwarf_ranges(
                die, ctypes.c_ssize_t(offset), *map(ctypes.byref, (base, begin, end))
            )
            if offset <= 0:
                return
            yield begin.value, end.value


class SourceLines:
    """Finds lines by libdw. `demangled` returns the name of a symbol as a program has it."""

    def __init__(self, dw: ctypes.CDLL, demangled: Callable[[str], str]) -> None:
        self._dw = dw
        self._demangled = demangled
        self._free = ctypes.CDLL(None).free
        self._names: dict[int | None, str] = {}  # by the address of the entry in memory, as the next one
        self._functions: dict[int | None, _Functions] = {}  # of units
        self._left_s = _MOST_CPU_S
        dw.dwfl_module_addrdie.restype = _Dies
        dw.dwarf_ranges.restype = dw.dwarf_getfuncs.restype = ctypes.c_ssize_t
        for name in ("dwfl_module_getsrc", "dwarf_attr", "dwarf_attr_integrate", "dwarf_formref_die"):
            getattr(dw, name).restype = _Pointer
        for name in ("dwfl_lineinfo", "dwarf_filesrc", "dwarf_diename", "dwarf_formstring"):
            getattr(dw, name).restype = ctypes.c_char_p

    def frames(self, module: ctypes.c_void_p, address: int) -> list[SourceFrame]:
        """Return the functions at an address of a module (Dwfl_Module *), the innermost one first.

        The last one contains the others and has a symbol. That is better than its name here, which is None,
        unless nobody demangles the symbol. Nothing, if the file does not say, or if too much time was spent.
        A call on a hostile file may take any time: `SymbolProcess` bounds each.
        """
        if self._left_s <= 0:
            return []
        begin_s = time.thread_time()
        with _no_file_opened():
            found = self._frames(module, address)
        self._left_s -= time.thread_time() - begin_s
        return found

    def _frames(self, module: ctypes.c_void_p, address: int) -> list[SourceFrame]:
        bias = _Word()
        unit = self._dw.dwfl_module_addrdie(module, _Word(address), ctypes.byref(bias))
        if not unit:
            return []
        place = self._place(module, address)
        found: list[SourceFrame] = []
        for die in self._scopes(unit, address - bias.value):
            tag = self._dw.dwarf_tag(ctypes.byref(die))
            if tag == _SUBPROGRAM:
                is_readable = not (self._linkage_name(die) or "").startswith(_RUST_V0)
                return [*found, SourceFrame(None if is_readable else self._name(die), *place)]
            if tag == _INLINED_SUBROUTINE:
                if len(found) < _MOST_INLINED:
                    found.append(SourceFrame(self._name(die), *place))
                place = self._call(unit, die)
        return [*found, SourceFrame(None, *place)]

    def _scopes(self, unit: Any, address: int) -> list[_Die]:
        """Return the entries that enclose an address, the innermost one first, each with its real parent.

        `dwarf_getscopes` itself goes from an inlined function to where that was written, and it and
        `dwarf_getscopes_die` walk through the whole unit each time, for milliseconds. So they are asked only
        about functions that are not listed.
        """
        function = self._functions_of(unit).at(address)
        if function is not None:
            return self._within(function, address)
        scopes = _Dies()
        if self._dw.dwarf_getscopes(unit, _Word(address), ctypes.byref(scopes)) <= 0:
            return []
        innermost = _Die.from_buffer_copy(scopes[0])
        self._free(scopes)
        return self._enclosing(innermost)

    def _functions_of(self, unit: Any) -> _Functions:
        functions = self._functions.get(unit.contents.addr)
        if functions is None:
            functions = self._functions[unit.contents.addr] = _Functions(self._dw, unit)
        return functions

    def _within(self, function: _Die, address: int) -> list[_Die]:
        """Return a function that contains an address, and what encloses it there, the innermost one first."""
        found, left = [function], _MOST_ENTRIES
        one, following = _Die(), _Die()
        while len(found) < _MOST_SCOPES and not self._dw.dwarf_child(
            ctypes.byref(found[-1]), ctypes.byref(one)
        ):
            while left and self._dw.dwarf_haspc(ctypes.byref(one), _Word(address)) != 1:
                left -= 1
                if self._dw.dwarf_siblingof(ctypes.byref(one), ctypes.byref(following)):
                    return found[::-1]
                one, following = following, one
            if not left:
                break
            found.append(_Die.from_buffer_copy(one))
        return found[::-1]

    def _enclosing(self, die: _Die) -> list[_Die]:
        """Return an entry and those around it, up to that of the unit."""
        scopes = _Dies()
        count = self._dw.dwarf_getscopes_die(ctypes.byref(die), ctypes.byref(scopes))
        if count <= 0:
            return []
        found = [_Die.from_buffer_copy(scopes[at]) for at in range(min(count, _MOST_SCOPES))]
        self._free(scopes)
        return found

    def _place(self, module: ctypes.c_void_p, address: int) -> tuple[str | None, int | None]:
        """Return the file and the line of an instruction."""
        line = ctypes.c_int()
        row = _Pointer(self._dw.dwfl_module_getsrc(module, _Word(address)))
        if not row.value:
            return None, None
        file = self._dw.dwfl_lineinfo(row, None, ctypes.byref(line), None, None, None)
        return _place(file, line.value)

    def _call(self, unit: Any, die: _Die) -> tuple[str | None, int | None]:
        """Return the file and the line at which an inlined function is called."""
        files, count = _Pointer(), ctypes.c_size_t()
        number, line = self._number(die, _CALL_FILE), self._number(die, _CALL_LINE)
        if number is None or self._dw.dwarf_getsrcfiles(unit, ctypes.byref(files), ctypes.byref(count)):
            return None, None
        if not number < min(count.value, _MOST_FILES):
            return None, None
        file = self._dw.dwarf_filesrc(files, ctypes.c_size_t(number), None, None)
        return _place(file, line or 0)

    def _name(self, die: _Die) -> str:
        """Return the name of an inlined function, like that of its symbol if it had one."""
        declared = self._declared(die)
        name = self._names.get(declared.addr)
        if name is None:
            mangled = self._linkage_name(declared)
            if mangled is None or mangled.startswith(_RUST_V0):
                name = self._qualified(declared)
            else:
                name = self._demangled(mangled)
            self._names[declared.addr] = name
        return name

    def _linkage_name(self, die: _Die) -> str | None:
        """Return the symbol that a function has, or would have if it were not inlined."""
        attribute = _Attribute()
        if not self._dw.dwarf_attr_integrate(ctypes.byref(die), _LINKAGE_NAME, ctypes.byref(attribute)):
            return None
        mangled = self._dw.dwarf_formstring(ctypes.byref(attribute))
        return mangled.decode(errors="backslashreplace") if mangled else None

    def _qualified(self, die: _Die) -> str:
        """Return the name of a function with those of the classes and namespaces around it."""
        around = self._enclosing(die)[1:]
        outer = [one for one in around if self._dw.dwarf_tag(ctypes.byref(one)) in _ENCLOSING_NAMES]
        return "::".join(self._own_name(one) for one in (*reversed(outer), die))

    def _declared(self, die: _Die) -> _Die:
        """Return the entry of a function where it is declared, among those of its class or namespace."""
        for kind in (_ABSTRACT_ORIGIN, _SPECIFICATION):
            attribute, found = _Attribute(), _Die()
            if self._dw.dwarf_attr(
                ctypes.byref(die), kind, ctypes.byref(attribute)
            ) and self._dw.dwarf_formref_die(ctypes.byref(attribute), ctypes.byref(found)):
                die = found
        return die

    def _own_name(self, die: _Die) -> str:
        name = self._dw.dwarf_diename(ctypes.byref(die))
        return name.decode(errors="backslashreplace") if name else "(anonymous)"

    def _number(self, die: _Die, kind: int) -> int | None:
        attribute, value = _Attribute(), _Word()
        if not self._dw.dwarf_attr_integrate(ctypes.byref(die), kind, ctypes.byref(attribute)):
            return None
        failed = self._dw.dwarf_formudata(ctypes.byref(attribute), ctypes.byref(value))
        return None if failed else value.value


@contextmanager
def _no_file_opened() -> Iterator[None]:
    """Let this process open no file. It has one thread. Descriptors that are open stay usable (getrlimit(2)),
    and libdw takes a file that it cannot open for one that is absent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _place(path: bytes | None, line: int) -> tuple[str | None, int | None]:
    """Return what is shown of a place; (None, None): a compiler made the code, and there is no line."""
    shown = shown_source(path.decode(errors="backslashreplace")) if path else ""
    return (shown, line) if shown and 0 < line < 1 << 31 else (None, None)


def shown_source(path: str) -> str:
    """Return what is shown of the path of a source file: its name, but of the standard library of C++ or Rust
    the path in it, which has a slash: `bits/stl_vector.h`, `alloc/src/raw_vec.rs`. Empty: a folder's path."""
    in_library = _STANDARD_LIBRARY.match(path)
    shown = path[in_library.end() :] if in_library else path.rpartition("/")[2]
    return shown[-_LONGEST_FILE:]
