"""The command line as a user without rights."""

from __future__ import annotations

from typing import Final

NOBODY: Final = 65534


def as_nobody(*modules: str) -> tuple[str, str]:
    """Return arguments of Python that run the command line as user 65534, if the caller is root.

    The modules, which the verb needs, are imported first: the checkout may be in a home that only root can
    enter. A later import fails on any machine.
    """
    code = (
        f"import os, sys, tracer.cli.group, {', '.join(modules)}\n"
        f"if os.geteuid() == 0: os.setgroups([]); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})\n"
        "sys.meta_path.clear()\n"
        "tracer.cli.main()"
    )
    return "-c", code
