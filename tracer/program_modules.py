"""Which files with code are of a program itself, by their names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_BENEATH: Final = re.compile(
    r"ld-musl[-\w]*|libc|libm|libstdc\+\+|libc\+\+(abi)?|libgcc_s"
    r"|libjemalloc|libtcmalloc\w*|libmimalloc|libpthread"
)
_RUNTIMES: Final = re.compile(r"ld-linux[-\w]*|dotnet|libcoreclr|libclr(gc|jit)\w*|libhost(fxr|policy)")
_INTERPRETERS: Final = {
    "python": re.compile(r"(lib)?python(3(\.\d+)?t?)?"),
    "PyPy": re.compile(r"(lib)?pypy(\d(\.\d+)?)?(-c)?"),
    "Perl": re.compile(r"(lib)?perl[\d.]*"),
    "PHP": re.compile(r"(lib)?php[\d.]*|php-(cgi|fpm)[\d.]*|php-fpm[\d.]*"),
    "Ruby": re.compile(r"(lib)?ruby[-\d.]*"),
}
_NODE: Final = re.compile(r"node(js)?|libnode")
_OF_NODE: Final = re.compile(r"\b(v8|node)::|Builtins_")
INTERPRETERS: Final = (*_INTERPRETERS, "Node.js")
"""The names of interpreters that `interpreter` returns."""


def may_be_of_program(module: str) -> bool:
    """Return whether a file with code may be of a program: it is no C library, no allocator, no
    interpreter and no part of the runtime of .NET."""
    name = module.partition(".so")[0]
    return not (is_beneath(module) or _RUNTIMES.fullmatch(name) or interpreter(module))


def is_beneath(module: str) -> bool:
    """Return whether a file with code is a C library or an allocator, which code of any language calls."""
    return _BENEATH.fullmatch(module.partition(".so")[0]) is not None


@lru_cache(maxsize=1 << 10)
def interpreter(module: str, function: str = "") -> str | None:
    """Return the name of the interpreter that a function is of, by the file that has its code; None: of none.
    Other programs are called `node` as well, so there the function must be of V8 or Node.js."""
    name = module.partition(".so")[0]
    if _NODE.fullmatch(name):
        return "Node.js" if _OF_NODE.search(function) else None
    return next((one for one, names in _INTERPRETERS.items() if names.fullmatch(name)), None)
