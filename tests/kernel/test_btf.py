"""BTF of a synthetic blob, of this kernel (compared with two other readers), and of damaged blobs."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.errors import TracerError
from tracer.kernel import struct_header
from tracer.kernel.btf import ARRAY, ENUM, ENUM64, INT, PTR, STRUCT, TYPEDEF, UNION, VMLINUX, Btf, Member

needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason=f"this kernel has no {VMLINUX}")

WORDS = ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))
SIGNED, BITFIELDS = 1 << 24, 1 << 31


class Blob:
    """A builder of BTF: types are added one by one (Documentation/bpf/btf.rst)."""

    def __init__(self, kernel: Blob | None = None) -> None:
        """Begin the BTF of a kernel; or that of a module, which goes on where the kernel's ends."""
        self.types = b""
        self.strings = b"" if kernel else b"\0"
        self.kernels = kernel.strings if kernel else b""
        self.count: int = kernel.count if kernel else 0

    def string(self, text: str) -> int:
        wanted = b"\0" + text.encode() + b"\0"
        if wanted not in self.kernels + self.strings:
            self.strings += wanted[1:]
        return (self.kernels + self.strings).index(wanted) + 1 if text else 0

    def add(
        self, kind: int, name: str, size_or_type: int, *words: int, length: int = 0, flags: int = 0
    ) -> int:
        head = (self.string(name), kind << 24 | length | flags, size_or_type)
        self.types += struct.pack(f"<{3 + len(words)}I", *head, *words)
        self.count += 1
        return self.count

    def record(self, kind: int, name: str, size: int, *members: tuple[str, int, int], flags: int = 0) -> int:
        """Add a structure or union of members (name, type, offset in bits); return its type id."""
        words = [word for member, type_id, bits in members for word in (self.string(member), type_id, bits)]
        return self.add(kind, name, size, *words, length=len(members), flags=flags)

    def pack(self) -> bytes:
        sections = (0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sections) + self.types + self.strings


@cache
def small_blob() -> bytes:
    """Return BTF with a few types, some with the names of those that the programs read."""
    blob = Blob()
    number = blob.add(INT, "int", 4, SIGNED | 32)
    unsigned = blob.add(INT, "unsigned long", 8, 64)
    atomic = blob.record(STRUCT, "atomic64_t", 8, ("counter", unsigned, 0))
    alias = blob.add(TYPEDEF, "atomic_long_t", atomic)
    counter = blob.record(STRUCT, "page_counter", 24, ("usage", alias, 0), ("max", unsigned, 128))
    row = blob.add(ARRAY, "", 0, unsigned, number, 3)
    table = blob.add(ARRAY, "", 0, row, number, 5)
    inner = blob.record(UNION, "", 16, ("x", number, 0), ("deep", unsigned, 64))
    memcg = blob.count + 2
    pointer = blob.add(PTR, "", memcg)
    blob.record(
        STRUCT, "mem_cgroup", 256,
        ("css", pointer, 0), ("", inner, 64), ("memory", counter, 192), ("table", table, 384),
    )  # fmt: skip
    blob.record(STRUCT, "bits", 8, ("low", number, 3 << 24), ("high", number, 3 << 24 | 32), flags=BITFIELDS)
    blob.add(ENUM, "item", 4, blob.string("NR_SHMEM"), 20, blob.string("NR_FILE_PAGES"), 19, length=2)
    blob.add(ENUM64, "", 8, blob.string("MEMCG_KMEM"), 7, 0, length=1)
    blob.add(TYPEDEF, "btf_trace_mark_victim", pointer)
    return blob.pack()


def test_members_of_a_structure_have_their_offsets() -> None:
    btf = Btf(small_blob())
    memcg = btf.struct("mem_cgroup")
    assert memcg is not None
    assert btf.size_bytes(memcg) == 256
    assert [(name, member.offset_bytes) for name, member in btf.members(memcg)] == [
        ("css", 0),
        ("", 8),
        ("memory", 24),
        ("table", 48),
    ]
    deep, css = btf.member(memcg, "deep"), btf.member(memcg, "css")
    assert deep is not None
    assert css is not None
    assert deep == Member(16, deep.type_id), "the offset is from the start of the outermost structure"
    assert btf.resolve(btf.target(css.type_id)) == memcg
    assert btf.member(memcg, "none") is None


def test_module_goes_on_where_the_kernel_ends(tmp_path: Path) -> None:
    kernel = Blob()
    number = kernel.add(INT, "unsigned long", 8, 64)
    inode = kernel.record(STRUCT, "inode", 24, ("i_ino", number, 64))
    module = Blob(kernel)
    key = module.record(STRUCT, "btrfs_key", 17, ("objectid", number, 0))
    root = module.record(STRUCT, "btrfs_root", 64, ("root_key", key, 128))
    pointer = module.add(PTR, "", root)
    module.record(STRUCT, "btrfs_inode", 56, ("root", pointer, 0), ("vfs_inode", inode, 256))
    (tmp_path / "vmlinux").write_bytes(kernel.pack())
    alone = struct_header.header(Btf.load(tmp_path / "vmlinux"))
    assert "btrfs" not in alone
    assert "HAS_inode_i_ino" in alone
    (tmp_path / "btrfs").write_bytes(module.pack())
    btf = Btf.load(tmp_path / "vmlinux")
    number_of = {name: btf.struct(name) for name in ("inode", "btrfs_inode", "btrfs_root")}
    assert number_of["inode"] == inode
    found = btf.member(number_of["btrfs_inode"] or 0, "vfs_inode")
    assert found == Member(32, inode)
    assert btf.name(inode) == "inode"
    for name in ("HAS_inode_i_ino", "HAS_btrfs_inode_vfs_inode", "HAS_btrfs_root_objectid"):
        assert f"#define {name} " in struct_header.header(btf)


def test_types_of_members_are_resolved() -> None:
    btf = Btf(small_blob())
    memcg = btf.struct("mem_cgroup")
    assert memcg is not None
    table = btf.member(memcg, "table")
    assert table is not None
    assert btf.size_bytes(table.type_id) == 5 * 3 * 8
    assert btf.array(table.type_id)[1] == 5
    assert btf.struct("atomic_long_t") == btf.struct("atomic64_t")
    assert btf.struct("int") is None
    bits = btf.struct("bits")
    assert bits is not None
    assert [member.offset_bytes for _, member in btf.members(bits)] == [0, 4]
    assert [(member.first_bit, member.bits) for _, member in btf.members(bits)] == [(0, 3), (0, 3)]
    assert btf.name(0) == "void"
    assert btf.kind(0) == 0


def test_enumerators_and_tracepoints_are_found_by_name() -> None:
    btf = Btf(small_blob())
    assert btf.enumerators == {"NR_SHMEM": 20, "NR_FILE_PAGES": 19, "MEMCG_KMEM": 7}
    assert btf.tracepoint_arguments("mark_victim") == ()
    assert btf.tracepoint_arguments("mark") is None
    assert btf.struct("mem") is None, "the beginning of a name is not a match"


def test_header_missing_member_is_left_out() -> None:
    text = struct_header.header(Btf(small_blob()))
    assert "#define HAS_page_counter_max 1" in text
    assert "HAS_page_counter_high" not in text
    assert "struct mem_cgroup * css;" in text
    assert "struct task_struct" not in text
    assert "#define KERNEL_ENUM_NR_SHMEM 20" in text
    assert "bpf_rdonly_cast" not in text, "this kernel has no such function: helpers read its memory"


def bitfields() -> bytes:
    """Return BTF of a task_struct with bitfields, in an anonymous structure as well."""
    blob = Blob()
    number = blob.add(INT, "unsigned int", 4, 32)
    inner = blob.record(STRUCT, "", 8, ("in_iowait", number, 3 << 24 | 30), flags=BITFIELDS)
    blob.record(
        STRUCT, "task_struct", 64,
        ("pid", number, 32), ("flags", number, 1 << 24 | 71), ("", inner, 128), flags=BITFIELDS,
    )  # fmt: skip
    return blob.pack()


def test_bitfields_have_their_bits_in_the_header() -> None:
    btf = Btf(bitfields())
    task = btf.struct("task_struct")
    assert task is not None
    in_iowait, pid = btf.member(task, "in_iowait"), btf.member(task, "pid")
    assert in_iowait == Member(16 + 3, 1, first_bit=6, bits=3)
    assert pid == Member(4, 1)
    text = struct_header.header(btf)
    assert "#define KERNEL_BITS_task_struct_in_iowait 0x1c0ULL" in text
    assert "struct { char pad_in_iowait_[19]; u16 bits_of_in_iowait; }" in text
    assert "#define KERNEL_BITS_task_struct_flags 0x80ULL" in text
    assert "struct { char pad_flags_[8]; u8 bits_of_flags; }" in text
    assert "u32 pid;" in text
    assert "KERNEL_BITS_task_struct_pid" not in text


# This kernel's own


@cache
def kernels_own() -> Btf:
    return Btf.load()


def placed_members() -> list[tuple[str, str, int]]:
    """Return (structure, member, offset in bytes) of all members that the programs read on this kernel."""
    btf = kernels_own()
    placed = []
    for name, members in struct_header.STRUCTS.items():
        type_id = btf.struct(name)
        for path in members if type_id is not None else ():
            found = struct_header._member(btf, type_id, path) if type_id is not None else None
            if found is not None:
                member = path.rpartition(".")[2]
                placed.append((name, f"bits_of_{member}" if found.bits else member, found.offset_bytes))
    return placed


@needs_btf
def test_members_are_inside_structures() -> None:
    btf = kernels_own()
    placed = placed_members()
    assert len(placed) > 60
    for name, member, offset in placed:
        type_id = btf.struct(name)
        assert type_id is not None
        assert 0 <= offset <= btf.size_bytes(type_id), f"{name}.{member}"  # =: a flexible array


@needs_btf
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs cc")
def test_header_compiled_has_offsets_of_btf(tmp_path: Path) -> None:
    """In the compiled header, each member has the offset of BTF, and each structure the size of BTF."""
    btf = kernels_own()
    integers = [f"typedef unsigned {word} u{bits}; typedef signed {word} s{bits};" for bits, word in WORDS]
    checks = [
        f'_Static_assert(__builtin_offsetof(struct {name}, {member}) == {offset}, "{name}.{member}");'
        for name, member, offset in placed_members()
    ]
    sizes = [(name, btf.struct(name)) for name in struct_header.STRUCTS]
    checks += [
        f'_Static_assert(sizeof(struct {name}) == {max(btf.size_bytes(type_id), 1)}, "{name}");'
        for name, type_id in sizes
        if type_id is not None
    ]
    source = tmp_path / "layout.c"
    source.write_text("\n".join([*integers, struct_header.header(btf), *checks]))
    ended = subprocess.run(["cc", "-fsyntax-only", source], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@needs_btf
@pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool, another reader of BTF")
def test_offsets_equal_those_of_bpftool() -> None:
    btf = kernels_own()
    dumped = subprocess.run(
        ["bpftool", "btf", "dump", "file", VMLINUX, "format", "raw"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    compared = 0
    heads = re.finditer(
        r"^\[(\d+)\] (?:STRUCT|UNION) '(.*?)' size=(\d+) vlen=\d+\n((?:\t.*\n)*)", dumped, re.M
    )
    for type_id, name, size, body in (head.groups() for head in heads):
        if name not in struct_header.STRUCTS:
            continue
        members = re.findall(
            r"^\t'(.*?)' type_id=(\d+) bits_offset=(\d+)(?: bitfield_size=(\d+))?", body, re.M
        )
        theirs = [
            ("" if name == "(anon)" else name, int(kind), int(at), int(bits or 0))
            for name, kind, at, bits in members
        ]
        ours = [
            (name, found.type_id, 8 * found.offset_bytes + found.first_bit, found.bits)
            for name, found in btf.members(int(type_id))
        ]
        assert ours == theirs, name
        assert btf.size_bytes(int(type_id)) == int(size)
        compared += 1
    assert compared >= len([name for name in struct_header.STRUCTS if btf.struct(name)])
    values = dict(re.findall(r"^\t'(\w+)' val=(\d+)", dumped, re.M)[::-1])  # the first of a name counts
    for name in struct_header.ENUMERATORS:
        assert btf.enumerators.get(name) == (int(values[name]) if name in values else None), name
    assert dumped.count("\n[") + 1 == len(btf._starts)


# Damage


def explore(blob: bytes) -> None:
    """Call everything of a BTF that the tracer uses."""
    btf = Btf(blob)
    btf.tracepoint_arguments("mark_victim")
    btf.function_arguments("out_of_memory")
    struct_header.header(btf)
    for type_id in range(len(btf._starts) + 2):
        btf.name(type_id)
        btf.size_bytes(btf.resolve(type_id)) if type_id else None


def only_tracer_errors(act: Callable[[], object]) -> None:
    try:
        act()
    except TracerError as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.dictionaries(st.integers(0, len(small_blob()) - 1), st.integers(0, 255), max_size=4))
def test_changed_bytes_are_read_or_raise(changes: dict[int, int]) -> None:
    blob = bytearray(small_blob())
    for position, byte in changes.items():
        blob[position] = byte
    only_tracer_errors(lambda: explore(bytes(blob)))


@given(st.integers(0, len(small_blob()) - 1))
def test_truncated_blob_raises(length: int) -> None:
    with pytest.raises(TracerError, match="the BTF is damaged or of an unknown form"):
        Btf(small_blob()[:length])


@given(st.binary(max_size=200))
def test_blob_of_other_content_raises(blob: bytes) -> None:
    with pytest.raises(TracerError, match="the BTF is damaged or of an unknown form"):
        Btf(blob)


def test_recursive_type_raises() -> None:
    blob = Blob()
    blob.add(TYPEDEF, "ouroboros", 1)
    blob.add(ARRAY, "", 0, 2, 1, 3)
    blob.record(STRUCT, "nested", 8, ("", 3, 0))
    btf = Btf(blob.pack())
    with pytest.raises(TracerError, match="refers to itself"):
        btf.resolve(1)
    with pytest.raises(TracerError, match="contains itself"):
        btf.size_bytes(2)
    with pytest.raises(TracerError, match="contains itself"):
        btf.member(3, "absent")


def test_load_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="CONFIG_DEBUG_INFO_BTF=y"):
        Btf.load(tmp_path / "vmlinux")
