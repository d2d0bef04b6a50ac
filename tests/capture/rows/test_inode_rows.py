"""Rows of `inodes`, from records as the BPF programs write them."""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.capture.rows.inode_rows import InodeRows, _mapped_files
from tracer.kernel.cgroups.mounts import MountTable, parse_mountinfo
from tracer.wire.dtypes import WIRE

HOST = b"""\
21 1 254:1 / / rw - ext4 /dev/vda1 rw
22 21 254:2 /exports /srv rw - ext4 /dev/vdb rw
"""
IN_CONTAINER = b"""\
31 1 0:40 / / rw - overlay overlay rw,lowerdir=/docker/one/diff,upperdir=/docker/two/diff,workdir=/w
32 31 254:2 /exports/big /data rw - ext4 /dev/vdb rw
33 31 254:3 / /own rw - xfs /dev/vdc rw
"""
CONTAINER_NS = 23


class KnownMounts:
    """A stand-in for `Mounts` with two mount tables."""

    def own(self) -> MountTable:
        return MountTable(parse_mountinfo(HOST))

    def other(self, mount_ns: int, tgids: tuple[int, ...], _since_ns: int) -> MountTable | None:
        return MountTable(parse_mountinfo(IN_CONTAINER)) if mount_ns == CONTAINER_NS and 7 in tgids else None


def file_row(device: tuple[int, int], *names: bytes, **fields: object) -> dict[str, Any]:
    """Return the row of a file with these names from the root, which by default the container uses."""
    record = np.zeros(1, WIRE["inode"])
    path = b"".join(name + b"/" for name in reversed(names))
    record["path"], record["path_len"], record["depth"] = path, len(path), len(names)
    record["dev"], record["nlink"], record["fs_type"] = device[0] << 20 | device[1], 1, b"ext4"
    record["mount_ns"], record["ppid"] = CONTAINER_NS, 7
    for field, value in fields.items():
        record[field] = value
    mounts: Any = KnownMounts()
    (row,) = InodeRows(mounts).rows_for(record)
    return row


@pytest.mark.parametrize(
    ("device", "names", "path", "kind", "container_path"),
    [
        ((254, 1), (b"etc", b"passwd"), "/etc/passwd", "host", None),
        ((254, 1), (b"docker", b"one", b"diff", b"sh"), "/docker/one/diff/sh", "host", "/sh"),
        ((254, 1), (b"docker", b"two", b"diff", b"a", b"b"), "/docker/two/diff/a/b", "host", "/a/b"),
        ((254, 2), (b"exports", b"big", b"file"), "/srv/big/file", "host", "/data/file"),
        ((254, 3), (b"f",), "/own/f", "container", "/own/f"),
        ((254, 4), (b"f",), "/f", "filesystem", None),
        ((254, 1), (b"caf\xe9",), "/caf\\xe9", "host", None),
        ((254, 1), (), None, None, None),
    ],
)
def test_file_has_a_path_on_the_host_and_one_in_the_container(
    device: tuple[int, int], names: tuple[bytes, ...], path: str, kind: str, container_path: str
) -> None:
    row = file_row(device, *names)
    assert (row["path"], row["path_kind"], row["container_path"]) == (path, kind, container_path)


def test_file_used_on_the_host_has_no_container_path() -> None:
    row = file_row((254, 2), b"exports", b"big", b"file", mount_ns=1)
    assert (row["path"], row["path_kind"], row["container_path"]) == ("/srv/big/file", "host", None)


def test_cut_path_is_not_taken_for_a_host_path() -> None:
    row = file_row((254, 1), b"deep", b"file", truncated=1)
    assert (row["path"], row["path_kind"], row["container_path"]) == ("…/deep/file", "filesystem", None)


def test_mapped_file_with_several_names_has_the_one_by_which_it_is_mapped(tmp_path: Path) -> None:
    """The kernel's first name is that of a link, as one in the build-id cache of perf."""
    mapped, link = tmp_path / "lib.so", tmp_path / "elf"
    mapped.write_bytes(bytes(mmap.PAGESIZE))
    os.link(mapped, link)
    status = mapped.stat()
    device = os.major(status.st_dev), os.minor(status.st_dev)
    used = {"ino": status.st_ino, "nlink": 2, "tgid": os.getpid()}
    names = (b"somewhere", b"elf")
    own_ns = Path("/proc/self/ns/mnt").stat().st_ino
    assert file_row(device, *names, **used, mount_ns=own_ns)["path"].endswith("/somewhere/elf")
    with mapped.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert file_row(device, *names, **used, mount_ns=own_ns)["path"] == str(mapped)
        others = ({"mount_ns": own_ns + 1}, {"mount_ns": own_ns, "nlink": 1}, {"mount_ns": own_ns, "ino": 1})
        for other in others:
            assert file_row(device, *names, **used | other)["path"].endswith("/somewhere/elf")
        mapped.unlink()
        assert file_row(device, *names, **used, mount_ns=own_ns)["path"].endswith("/somewhere/elf")


def test_file_mapped_under_a_hostile_name_hides_no_other(tmp_path: Path) -> None:
    """The kernel escapes only the newline in a name."""
    paths = [bytes(tmp_path) + name for name in (b"/a\rb", b"/a\ra b c d e /x", b"/plain")]
    with ExitStack() as held:
        for path in paths:
            Path(os.fsdecode(path)).parent.mkdir(exist_ok=True)
            file = held.enter_context(open(path, "w+b"))  # noqa: PTH123  a name of any bytes
            file.truncate(1)
            held.enter_context(mmap.mmap(file.fileno(), 1))
        found = _mapped_files(os.getpid())
        name_of = {inode: name for (_, inode), name in found.items()}
        assert [name_of[os.lstat(path).st_ino] for path in paths] == paths


def test_file_without_a_directory_has_the_kernels_name() -> None:
    row = file_row((0, 1), b"memfd:m", is_pseudo=1, nlink=0, fs_type=b"tmpfs")
    assert (row["path"], row["path_kind"], row["deleted"]) == ("memfd:m", "kernel", True)


def test_cache_of_a_block_device_names_the_device() -> None:
    row = file_row((0, 3), fs_type=b"bdev", mode=0o060600, rdev=4095 << 20 | 77)
    assert (row["path"], row["path_kind"], row["rdev"]) == (None, None, "4095:77"), "no such device here"
    assert file_row((254, 1), b"file", mode=0o100644)["rdev"] is None
