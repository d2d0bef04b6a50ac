"""Where BCC is found: the folders of Debian, Fedora and Arch, for whatever Python runs this."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracer.capture.bpf.compiled import bcc_module
from tracer.errors import TracerError

DEBIAN = "lib/python3/dist-packages"
FEDORA_AND_ARCH = "lib/python3.99/site-packages"


@pytest.fixture
def usr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the /usr of a distribution, whose packages this Python does not see."""
    monkeypatch.setattr(bcc_module, "USR", tmp_path)
    for name in [one for one in sys.modules if one.partition(".")[0] == "bcc"]:
        monkeypatch.delitem(sys.modules, name)  # so that it is there again afterwards
    monkeypatch.setitem(sys.modules, "bcc", None)
    return tmp_path


def install(usr: Path, packages: str, libraries: str, text: str = "BPF = 1\n") -> Path:
    """Write a BCC that consists of a module and a library. Returns the module."""
    init = usr / packages / "bcc/__init__.py"
    init.parent.mkdir(parents=True)
    init.write_text(text)
    (usr / libraries).mkdir(parents=True, exist_ok=True)
    (usr / libraries / "libbcc.so.0").touch()
    return init


@pytest.mark.parametrize(
    ("packages", "libraries"),
    [(DEBIAN, "lib/riscv64-linux-gnu"), (FEDORA_AND_ARCH, "lib64"), (FEDORA_AND_ARCH, "lib")],
    ids=["debian", "fedora", "arch"],
)
def test_bcc_is_found_where_a_distribution_has_it(usr: Path, packages: str, libraries: str) -> None:
    with pytest.raises(
        TracerError, match=r"python3-bpfcc \(Debian\), python3-bcc \(Fedora, RHEL\), python-bcc"
    ):
        bcc_module.find_bcc()
    assert bcc_module.installed_bcc() == ""
    init = install(usr, packages, libraries)
    found = bcc_module.find_bcc()
    assert (found.__file__, found.BPF) == (str(init), 1)
    files = [line.split()[0] for line in bcc_module.installed_bcc().splitlines()]
    assert files == [str(init), str(usr / libraries / "libbcc.so.0")]


def test_bcc_whose_library_is_missing_is_an_error_that_names_it(usr: Path) -> None:
    init = install(usr, FEDORA_AND_ARCH, "lib64", "import ctypes\nctypes.CDLL('libbcc-is-not-here.so.0')\n")
    with pytest.raises(
        TracerError, match=f"BCC is installed in {init.parent} but does not load: libbcc-is-not"
    ):
        bcc_module.find_bcc()
