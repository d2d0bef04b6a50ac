"""Kernels that are ready to boot, kept in a folder so that each is fetched and unpacked once."""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm import image
from vm.debian import SUITES, Archive, find_mirrors
from vm.errors import NotRunError
from vm.programs import call

MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "virtio_blk", "ext4", "fuse")
"""The modules for a guest's root and disk, and for the filesystems of tests; a kernel may have them built
in."""

_READY: Final = "ready.json"  # written last: a folder without it is incomplete


@dataclass(frozen=True)
class Kernel:
    """A kernel that is ready to boot; `has_v1`: it can have the memory controller on cgroup v1."""

    series: str
    release: str
    has_v1: bool

    @property
    def vmlinux(self) -> Path:
        return _folder(self.series) / "vmlinux"

    @property
    def modules(self) -> list[Path]:
        """The modules in the order in which they are loaded."""
        return sorted((_folder(self.series) / "modules").iterdir())


def cache() -> Path:
    """Return the folder of kernels and results: $MEMCG_TRACER_VM_CACHE, by default below ~/.cache."""
    chosen = os.environ.get("MEMCG_TRACER_VM_CACHE")
    return Path(chosen).resolve() if chosen else Path.home() / ".cache/memcg-tracer/vm"


def prepare(series: str) -> Kernel:
    """Return the kernel of a series, fetched at the first call as the newest one; raises NotRunError if it
    cannot be fetched."""
    folder = _folder(series)
    try:
        ready = json.loads((folder / _READY).read_text())
    except FileNotFoundError:
        ready = {}
    if ready.get("modules") == list(MODULES):
        return Kernel(series, ready["release"], ready["has_v1"])
    shutil.rmtree(folder, ignore_errors=True)
    with _unpacked(series, "amd64", only_image=False) as packages:
        made = _make_ready(series, packages)
    ready = {"release": made.release, "has_v1": made.has_v1, "modules": MODULES}
    (folder / _READY).write_text(json.dumps(ready))
    return made


def arm64_btf(series: str) -> Path:
    """Return a file with the BTF of the series' kernel for arm64; raises NotRunError if it cannot be
    fetched."""
    file = cache() / f"{series}-arm64.btf"
    if not file.exists():
        with _unpacked(series, "arm64", only_image=True) as packages:
            found = image.btf(image.arm64_image(_part(packages, "vmlinuz").read_bytes()))
        file.write_bytes(found)
    return file


def _folder(series: str) -> Path:
    return cache() / series


@contextmanager
def _unpacked(series: str, architecture: str, *, only_image: bool) -> Iterator[Path]:
    """Yield a temporary folder with the unpacked packages of the newest kernel of the series."""
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="packages-", dir=cache()) as directory:
        lists, packages = Path(directory, "apt"), Path(directory, "root")
        archive = Archive(lists, find_mirrors(), SUITES[series], architecture)
        found = archive.newest(series)
        archive.unpack(found[:1] if only_image else found, packages)
        yield packages


def _make_ready(series: str, packages: Path) -> Kernel:
    modules = _only(path.parent for path in packages.glob("**/modules.order"))
    kernel = Kernel(series, modules.name, _has_v1(_part(packages, "config").read_text()))
    (_folder(series) / "modules").mkdir(parents=True)
    kernel.vmlinux.write_bytes(image.vmlinux(_part(packages, "vmlinuz").read_bytes()))
    for number, module in enumerate(_load_order(modules)):
        target = _folder(series) / "modules" / f"{number:02}-{module.name.partition('.')[0]}.ko"
        target.write_bytes(_module(module))
    return kernel


def _has_v1(config: str) -> bool:
    """Return whether a kernel of this configuration can have the memory controller on cgroup v1.

    CONFIG_MEMCG_V1 exists since e93d4166b40a ("mm: memcg: put cgroup v1-specific code under a config
    option"), v6.11; older kernels always have the controller.
    """
    return "CONFIG_MEMCG=y" in config and "# CONFIG_MEMCG_V1 is not set" not in config


def _load_order(modules: Path) -> list[Path]:
    """Return the files of MODULES and of their dependencies, each after its dependencies."""
    base = modules.parents[2]  # of lib/modules/RELEASE
    options = ["--dirname", str(base), "--set-version", modules.name]
    call("depmod", "--basedir", base, modules.name)
    printed = call("modprobe", *options, "--all", "--show-depends", *MODULES)
    files = re.findall(r"^insmod (\S+)", printed, flags=re.MULTILINE)
    return [Path(file) for file in dict.fromkeys(files)]


def _module(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()


def _part(packages: Path, name: str) -> Path:
    """Return a file that Debian has in /boot, since 6.19 beside the modules."""
    return _only([*packages.glob(f"boot/{name}-*"), *packages.glob(f"usr/lib/modules/*/{name}")])


def _only(paths: Iterable[Path]) -> Path:
    found = list(paths)
    if len(found) != 1:
        raise NotRunError(f"the kernel's packages are not laid out as known: {found}")
    return found[0]
