"""Which files with code are of a program itself, by their names."""

from __future__ import annotations

import re
from typing import Final

_OTHERS: Final = re.compile(
    r"ld-linux[-\w]*|ld-musl[-\w]*|libc|libm|libstdc\+\+|libc\+\+(abi)?|libgcc_s"
    r"|libjemalloc|libtcmalloc\w*|libmimalloc|(lib)?python(3(\.\d+)?t?)?|libpthread"
    r"|dotnet|libcoreclr|libclr(gc|jit)\w*|libhost(fxr|policy)"
)


def may_be_of_program(module: str) -> bool:
    """Return whether a file with code may be of a program: it is no C library, no allocator, no
    interpreter and no part of the runtime of .NET."""
    return _OTHERS.fullmatch(module.partition(".so")[0]) is None
