from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.file_systems import overlay, subvolume

from tracer.kernel.cgroups import mounts as mounts_module
from tracer.kernel.cgroups.mounts import (
    Mount,
    Mounts,
    MountTable,
    device_of,
    first_on_a_disk,
    parse_mountinfo,
    read_mounts,
)
from tracer.kernel.process.mapped_ranges import read_maps

TABLE = b"""\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
22 21 0:20 / /proc rw,nosuid shared:5 - proc proc rw
23 21 254:2 /@home /home rw,relatime shared:7 master:3 - btrfs /dev/vdb rw,subvol=/@home
24 23 254:2 /@data/big /home/data rw - btrfs /dev/vdb rw,subvol=/@data
25 21 0:40 / /mnt/with\\040space\\134\\011 rw - tmpfs none rw,size=4k
26 21 254:1 /var/lib/docker /docker ro - ext4 /dev/vda1 rw
27 21 254:3 / /over rw - xfs /dev/vdc rw
28 27 254:4 / /over rw - xfs /dev/vdd rw
29 21 254:5 / /a/b rw - xfs /dev/vde rw
30 21 254:6 / /a rw - xfs /dev/vdf rw
"""


@pytest.fixture
def table() -> MountTable:
    return MountTable(parse_mountinfo(TABLE))


def test_parse_line_reads_every_field() -> None:
    home = parse_mountinfo(TABLE)[2]
    assert home == Mount(
        23, 21, (254, 2), "/@home", "/home", "btrfs", "/dev/vdb", frozenset({"rw", "subvol=/@home"})
    )


def test_parse_octal_escapes_are_decoded() -> None:
    assert parse_mountinfo(TABLE)[4].mount_point == "/mnt/with space\\\t"


def test_parse_other_lines_are_left_out() -> None:
    assert parse_mountinfo(b"21 1 254:1 / /\n\nx y a:b / / rw - ext4 none rw\n") == []


@pytest.mark.parametrize(
    ("device", "path_in_fs", "expected"),
    [
        ((254, 1), "/etc/passwd", "/etc/passwd"),
        ((254, 1), "/", "/"),
        ((254, 1), "/var/lib/docker/f", "/docker/f"),  # the deepest root that shows the file
        ((254, 1), "/var/lib/docker2/f", "/var/lib/docker2/f"),
        ((254, 2), "/@home/me", "/home/me"),
        ((254, 2), "/@data/big/f", "/home/data/f"),
        ((254, 2), "/@home/data/f", None),  # hidden by the mount at /home/data
        ((254, 2), "/@snapshots/f", None),  # a subvolume that is not mounted
        ((254, 1), "/proc/f", None),
        ((254, 3), "/f", None),  # another filesystem is mounted over it, at the same place
        ((254, 4), "/f", "/over/f"),
        ((254, 5), "/f", None),  # /a was mounted after /a/b, over it
        ((254, 6), "/b/f", "/a/b/f"),
        ((0, 40), "/f", "/mnt/with space\\\t/f"),
        ((9, 9), "/f", None),
    ],
)
def test_host_path_of_each_mount(
    table: MountTable, device: tuple[int, int], path_in_fs: str, expected: str | None
) -> None:
    assert table.host_path(device, path_in_fs) == expected


OVERLAYS = b"""\
21 1 254:1 / / rw - ext4 /dev/vda1 rw
22 21 0:40 / /merged rw - overlay overlay rw,lowerdir=/l/one:/l/a\\134:b::/l/data,upperdir=/u/diff
23 21 0:41 / /new rw - overlay overlay rw,lowerdir+=/l/x:y,datadir+=/l/far,upperdir=/v/diff,workdir=/v/work
24 21 0:42 /sub /part rw - overlay overlay rw,lowerdir=/l/part
25 21 0:43 / /hidden rw - overlay overlay rw,lowerdir=/l/hidden
26 25 254:2 / /hidden rw - ext4 /dev/vdb rw
27 21 0:44 / /short rw - overlay overlay rw,lowerdir=l/ABC,upperdir=ID/diff
28 21 254:3 / /ext rw - ext4 /dev/vdc rw,lowerdir=/l/none
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/l/one/bin/sh", "/merged/bin/sh"),
        ("/l/a:b/f", "/merged/f"),
        ("/l/data/f", "/merged/f"),
        ("/u/diff/made", "/merged/made"),
        ("/u/w/made", None),
        ("/l/x:y/f", "/new/f"),
        ("/l/far/f", "/new/f"),
        ("/l/onemore/f", None),
        ("/l/one", None),
        ("/l/part/sub/f", "/part/f"),
        ("/l/part/else/f", None),  # only /sub of that overlay is mounted
        ("/l/hidden/f", None),
        ("/ID/diff/f", None),  # relative to an unknown directory
        ("/l/none/f", None),
    ],
)
def test_overlaid_path_of_each_layer(path: str, expected: str | None) -> None:
    assert MountTable(parse_mountinfo(OVERLAYS)).overlaid_path(path) == expected


def test_layer_on_a_file_system_without_an_answer_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other layers lead to the directories behind their links."""

    def bounded(asked: str, call: Callable[[str], str], path: str) -> str:
        if asked == "/silent":
            raise TimeoutError
        return call(path)

    monkeypatch.setattr(mounts_module, "bounded", bounded)
    (tmp_path / "diff").mkdir()
    (tmp_path / "link").symlink_to("diff")
    options = f"lowerdir=/silent:{tmp_path}/link,upperdir={tmp_path}/up"
    table = MountTable(parse_mountinfo(f"22 1 0:40 / / rw - overlay overlay rw,{options}\n".encode()))
    assert table.overlaid_path("/silent/f") == "/f"
    assert table.overlaid_path(f"{tmp_path}/diff/g") == "/g"
    assert table.overlaid_path(f"{tmp_path}/link/g") is None
    assert table.overlaid_path(f"{tmp_path}/up/h") == "/h"


def test_other_own_namespace_or_dead_process_is_none() -> None:
    mounts = Mounts()
    own_ns = Path("/proc/self/ns/mnt").stat().st_ino
    assert mounts.other(own_ns, (os.getpid(),), 1) is None
    assert mounts.other(0, (os.getpid(),), 1) is None
    assert mounts.other(own_ns + 1, (os.getpid(), 2**22 + 1), 1) is None, "no process is in it"
    assert mounts.own() is mounts.own(), "unchanged mounts are not read again"
    mounts.close()


def test_other_older_table_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {7: b"21 1 254:1 / / rw - ext4 /dev/vda1 rw\n"}
    monkeypatch.setattr(mounts_module, "_mountinfo_of", lambda _, tgid: tables.get(tgid, b""))
    mounts = Mounts()
    before = mounts.other(23, (5, 7), time.monotonic_ns())
    assert before is not None
    assert before.host_path((0, 40), "/f") is None
    assert mounts.other(23, (5, 7), time.monotonic_ns()) is before, "unchanged mounts are not parsed again"
    tables[7] += b"22 21 0:40 / /new rw - tmpfs none rw\n"
    assert mounts.other(23, (5, 7), 1) is before, "an earlier time needs no new table"
    after = mounts.other(23, (5, 7), time.monotonic_ns())
    assert after is not None
    assert after.host_path((0, 40), "/f") == "/new/f"
    del tables[7]
    assert mounts.other(23, (5, 7), time.monotonic_ns()) is after, "the last known table"
    mounts.close()


def test_host_path_of_real_file_is_its_path(tmp_path: Path) -> None:
    mounts = read_mounts()
    table = MountTable(mounts)
    real = Path(os.path.realpath(tmp_path))
    mount = table.mount_of(str(real))
    assert mount is not None
    inside = mount.root.rstrip("/") + str(real)[len(mount.mount_point.rstrip("/")) :]
    assert table.host_path(mount.device, inside) == str(real)


@given(st.binary(max_size=400))
def test_parse_any_bytes_never_raises(content: bytes) -> None:
    table = MountTable(parse_mountinfo(content))
    table.host_path((0, 0), "/x")
    table.mount_of("/x")


def test_first_on_a_disk_skips_memory_and_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk, missing = tmp_path / "memory", tmp_path / "disk", tmp_path / "missing"
    memory.mkdir()
    disk.mkdir()
    table = [
        Mount(1, 1, (0, 1), "/", "/", "ext4", "x", frozenset()),
        Mount(2, 1, (0, 2), "/", str(memory), "tmpfs", "x", frozenset()),
    ]
    monkeypatch.setattr(mounts_module, "read_mounts", lambda: table)
    assert first_on_a_disk([memory, missing, disk]) == disk
    assert first_on_a_disk([memory, missing]) is None


def test_first_on_a_disk_in_chroot_without_mount_of_its_root_knows_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent of both mounts, 27, is the mount of the root, which the table of a chroot may lack."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    inside, on_memory = disk / "inside", memory / "disk"
    for directory in (memory, disk, inside, on_memory):
        directory.mkdir()
    table = [
        Mount(30, 27, (0, 2), "/", str(memory), "tmpfs", "x", frozenset()),
        Mount(31, 30, (0, 3), "/", str(on_memory), "ext4", "x", frozenset()),
        Mount(32, 27, (0, 4), "/", str(inside), "tmpfs", "x", frozenset()),
    ]
    monkeypatch.setattr(mounts_module, "read_mounts", lambda: table)
    assert first_on_a_disk([memory, inside]) is None
    assert first_on_a_disk([memory, disk]) == disk
    assert first_on_a_disk([memory, on_memory]) == on_memory


EDGES = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["/", "/a", "/a/b"]))


@given(st.lists(EDGES, max_size=6, unique_by=lambda edge: edge[0]))
def test_mount_of_table_with_cycle_ends(edges: list[tuple[int, int, str]]) -> None:
    mounts = [Mount(own, parent, (0, own), "/", point, "x", "x", frozenset()) for own, parent, point in edges]
    table = MountTable(mounts)
    for mount in mounts:
        path = table.host_path(mount.device, "/f")
        assert path is None or path.startswith(mount.mount_point)


@pytest.mark.kernel
@pytest.mark.beside
@pytest.mark.parametrize("mount", [subvolume, overlay])
def test_device_of_a_file_is_the_kernels_where_stat_has_another(
    mount: Callable[..., AbstractContextManager[Path]], disk_dir: Path
) -> None:
    (disk_dir / "data").write_bytes(b"x")
    with mount(disk_dir, disk_dir / "data") as place, (place / "data").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
            name = os.fsencode(place / "data")
            (mapped,) = (one.device for one in read_maps(Path("/proc/self")) if one.name == name)
        assert device_of(file.fileno()) == mapped
        status = os.fstat(file.fileno())
        assert (os.major(status.st_dev), os.minor(status.st_dev)) != mapped


def test_device_of_a_file_without_a_mount_is_that_of_stat() -> None:
    file = os.memfd_create("nowhere")  # tmpfs of the kernel's own, which no table has
    status = os.fstat(file)
    assert device_of(file) == (os.major(status.st_dev), os.minor(status.st_dev))
    os.close(file)
