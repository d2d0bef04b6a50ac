"""What users read where a package of an extra is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.errors import TracerError
from tracer.extras import from_extra

TOP = Path(__file__).parents[1]
TRACE = TOP / "traces/page-cache"


def without(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python in which `package` cannot be imported."""
    script = f"import sys; sys.modules[{package!r}] = None\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_missing_package_is_an_error_that_says_how_to_install_it() -> None:
    words = r"^a picture needs absent: pip install 'memcg-tracer\[plot\]'$"
    with pytest.raises(TracerError, match=words), from_extra("plot", "a picture"):
        import absent.part  # type: ignore[import-not-found]  # noqa: F401


def test_missing_module_of_the_project_stays_a_bug() -> None:
    with pytest.raises(ImportError), from_extra("plot", "a picture"):
        import tracer.absent  # type: ignore[import-not-found]  # noqa: F401


def test_trace_without_matplotlib_is_read_and_has_no_pictures() -> None:
    code = (
        f"import tracer; t = tracer.open({str(TRACE)!r}); print(len(t.explain()), len(t.timeline())); t.plot"
    )
    found = without("matplotlib", code)
    assert re.fullmatch(r"1 [1-9]\d*\n", found.stdout)
    assert found.stderr.endswith(
        "TracerError: a picture needs matplotlib: pip install 'memcg-tracer[plot]'\n"
    )


def test_export_without_perfetto_names_the_extra(tmp_path: Path) -> None:
    words = ["export", str(TRACE), "--to", "perfetto", "-o", str(tmp_path / "p")]
    found = without("perfetto", f"sys.argv[1:] = {words!r}\nfrom tracer.cli import main\nmain()")
    assert found.returncode == 1
    assert found.stderr == (
        "memcg-tracer: error: export --to perfetto needs perfetto: pip install 'memcg-tracer[perfetto]'\n"
    )
    assert not (tmp_path / "p").exists()


def test_profile_without_protobuf_names_the_package_and_the_extra() -> None:
    code = (
        "from tracer.extras import from_extra\n"
        "with from_extra('pprof', 'a profile'):\n"
        "    from google.protobuf import descriptor_pb2\n"
    )
    assert without("google", code).stderr.endswith(
        "TracerError: a profile needs protobuf: pip install 'memcg-tracer[pprof]'\n"
    )
