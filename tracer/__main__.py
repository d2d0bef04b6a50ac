"""`python -m tracer`: the same as the `memcg-tracer` command."""

from __future__ import annotations

import os
import sys

if not sys.flags.safe_path and sys.path[:1] != [os.path.abspath(f"{__file__}/../..")]:  # noqa: PTH100
    del sys.path[0]  # the working directory, where anybody may have put a module

from tracer.cli import main

if __name__ == "__main__":
    main()
