"""BCC: found and imported. The only importer of `bcc`; only child processes import it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from tracer.errors import TracerError

USR: Final = Path("/usr")
_LIBRARIES: Final = ("lib/*-linux-gnu", "lib64", "lib", "local/lib", "local/lib64")


def installed_bcc() -> str:
    """Return a text that changes with the installed BCC, without importing it; "" if none is installed."""
    libraries = [file for folder in _LIBRARIES for file in sorted(USR.glob(f"{folder}/libbcc.so.0"))]
    statuses = ((file, file.stat()) for file in (*_distributions(), *libraries))
    return "\n".join(f"{file} {status.st_size} {status.st_mtime_ns}" for file, status in statuses)


def _distributions() -> list[Path]:
    """Return the `__init__.py` of each BCC package of the distribution."""
    places = [
        *USR.glob("lib/python3*/dist-packages"),  # Debian, Ubuntu
        *USR.glob("lib/python3*/site-packages"),  # Fedora, RHEL, Arch
    ]
    return [init for place in places if (init := place / "bcc" / "__init__.py").is_file()]


def find_bcc() -> ModuleType:
    """Import BCC, from the distribution's folder if this Python does not see it. Raises TracerError.

    PyPI has an unrelated package of the same name, so a `bcc` without `BPF` is passed over.
    """
    found_wrong = False
    try:
        module = importlib.import_module("bcc")
    except ImportError:
        pass
    except Exception:  # an unrelated package may raise anything
        found_wrong = True
    else:
        if hasattr(module, "BPF"):
            return module
        found_wrong = True
    for init in _distributions():
        return _import_from(init)
    hint = "install the distribution's: python3-bpfcc (Debian), python3-bcc (Fedora, RHEL), python-bcc (Arch)"
    if found_wrong:
        raise TracerError(
            f"the `bcc` that Python finds is PyPI's package, not the BPF Compiler Collection; {hint}"
        )
    raise TracerError(f"BCC, the BPF Compiler Collection, is not installed; {hint}")


def _import_from(init: Path) -> ModuleType:
    for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("bcc", init, submodule_search_locations=[str(init.parent)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        del sys.modules["bcc"]
        raise TracerError(f"BCC is installed in {init.parent} but does not load: {error}") from None
    return module
