"""`make release-check`: a release is the same twice, its bills name what is in it, and the wheel is enough.

The wheel is installed into a venv of its own, and reads a committed trace there without a capability, so
without BPF. `make deb-check` and `make image-check` run the other two files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

TOP: Final = Path(__file__).parents[2]
FILES: Final = TOP / "build/release"
BEFORE: Final = TOP / "build/release-before"
_NO_CAPABILITY: Final = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--")
_READ: Final = "import tracer; t = tracer.open({!r}); print(len(t.kills()), t.explain()[0].verdict.cause)"


def main() -> None:
    """Run all checks. AssertionError or CalledProcessError if one fails."""
    sums = {folder: (folder / "SHA256SUMS").read_text() for folder in (BEFORE, FILES)}
    print(sums[FILES], end="")
    assert sums[BEFORE] == sums[FILES], f"{BEFORE} and {FILES} differ"
    [package], [image], [wheel] = (FILES.glob(f"*.{kind}") for kind in ("deb", "tar", "whl"))
    _check_bill(package, {"python3-bpfcc", "python3", "libdw1", "pyarrow", "pandas", "protobuf", "grpcio"})
    _check_bill(image, {"python3-bpfcc", "python3-minimal", "libdw1t64", "libc6", "pyarrow", "memcg-tracer"})
    _check_bill(wheel, set(_dependencies()))
    with tempfile.TemporaryDirectory() as folder:
        _check_wheel(wheel, Path(folder))
    print("the same bytes twice; each bill names what is in its file; the wheel reads a trace")


def _check_bill(file: Path, names: set[str]) -> None:
    bill: dict[str, Any] = json.loads(file.with_name(f"{file.name}.cdx.json").read_text())
    named = {one["name"].lower() for one in bill["components"]}
    assert names <= named, f"{file.name}.cdx.json lacks {sorted(names - named)}"
    print(f"{file.name}: {len(named)} components")


def _dependencies() -> list[str]:
    """Return the names that pyproject.toml lists as dependencies."""
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return [re.split(r"[^\w-]", one)[0].lower() for one in project["dependencies"]]


def _check_wheel(wheel: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    subprocess.run([folder / "venv/bin/python", *install], check=True)
    trace = shutil.copytree(TOP / "traces/page-cache", folder / "trace")

    def run(program: str, *arguments: str | Path) -> str:
        command = [*_NO_CAPABILITY, folder / "venv/bin" / program, *arguments]
        return subprocess.run(command, check=True, cwd=folder, text=True, capture_output=True).stdout

    assert run("python", "-c", _READ.format(str(trace))).startswith("1 ")
    assert "asked for more memory" in run("memcg-tracer", "explain", trace)
    run("memcg-tracer", "report", trace, "-o", folder / "page.html")
    run("kubectl-oom", "--help")


if __name__ == "__main__":
    main()
