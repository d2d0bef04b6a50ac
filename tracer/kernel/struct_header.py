"""The C header by which BPF programs read this kernel's structures by name.

For each structure that the programs use, the header declares only the members that they use, at the offsets
in the running kernel's BTF. So the programs need no kernel headers, and fit every kernel that has BTF. A
member that this kernel lacks is left out; for all others, `HAS_<struct>_<member>` is defined. A bitfield is
read by the mask `KERNEL_BITS_<struct>_<member>` (LOAD_BITS in bpf/shared/kernel.h).
"""

from __future__ import annotations

from typing import Final

from tracer.categories import CATEGORIES, RECLAIM_COUNTS
from tracer.kernel.btf import ARRAY, ENUM, ENUM64, INT, PTR, STRUCT, UNION, Btf, BtfError, KnownTypes, Member

STRUCTS: Final[dict[str, tuple[str, ...]]] = {
    "kernfs_node": ("id", "priv", "name", "parent", "__parent"),
    "list_head": ("next",),
    "hlist_node": ("next",),
    "hlist_head": ("first",),
    "cgroup_subsys_state": (
        *("cgroup", "ss", "parent", "children", "sibling", "flags", "serial_nr", "refcnt.data"),
    ),
    "psi_group_cpu": ("state_mask", "times", "times_prev"),
    "psi_group": ("enabled", "pcpu", "total"),
    "cgroup": ("self", "kn", "root", "subsys", "psi", "nr_descendants", "nr_dying_descendants"),
    "page_counter": (
        *("usage", "max", "high", "low", "min", "failcnt", "watermark"),
        *("emin", "elow", "children_min_usage"),
    ),
    "memcg_vmstats_percpu": ("state", "events"),
    "memcg_vmstats": ("state", "events", "stats_updates"),
    "mem_cgroup": (
        *("css", "memory", "swap", "memsw", "kmem", "soft_limit", "swappiness"),
        *("oom_group", "oom_kill_disable", "under_oom"),
        *("vmstats", "vmstats_percpu", "memory_events"),
    ),
    "obj_cgroup": ("memcg", "is_root"),
    "css_set": ("subsys",),
    "file_system_type": ("name",),
    "gendisk": ("diskseq",),
    "block_device": ("bd_disk",),
    "backing_dev_info": ("id",),
    "super_block": ("s_dev", "s_type", "s_magic", "s_root", "s_bdev", "s_bdi"),
    "qstr": ("name", "len"),
    "dentry": ("d_parent", "d_name", "d_inode", "d_u.d_alias", "d_alias"),
    "inode": (
        *("i_private", "i_ino", "i_sb", "i_generation", "i_mode", "i_size"),
        *("i_nlink", "i_rdev", "i_dentry"),
    ),
    "btrfs_root": ("root_key.objectid",),
    "btrfs_inode": ("root", "vfs_inode"),
    "address_space": ("host", "flags", "i_mmap.rb_root.rb_node", "i_pages.xa_head"),
    "xa_node": ("slots",),
    "page": ("page_type", "private"),
    "slab": ("slab_cache", "objects", "stride"),
    "slabobj_ext": ("objcg", "_objcg"),
    "kmem_cache": ("size", "name"),
    "folio": ("flags", "mapping", "index", "memcg_data", "_flags_1", "_folio_order"),
    "percpu_counter": ("count",),
    "mm_struct": (
        *("rss_stat", "rss_stat.count", "pgtables_bytes", "start_code", "start_stack"),
        *("total_vm", "data_vm", "exec_vm", "stack_vm", "exe_file", "owner"),
    ),
    "signal_struct": ("nr_threads", "live.counter", "oom_score_adj", "core_state"),
    "kernel_siginfo": ("si_code",),
    "upid": ("nr",),
    "pid": ("level", "numbers"),
    "cred": ("uid",),
    "pt_regs": (
        "orig_ax",
        "ip",
        "sp",
        "di",
        "si",
        "dx",
        "cx",
        "ax",
        "r10",
        "regs",
        "orig_x0",
        "syscallno",
        "pc",
    ),
    "bpf_array": ("pptrs",),
    "file": ("private_data", "f_inode", "f_mapping", "f_flags", "f_pos", "f_path.dentry"),
    "vm_area_struct": ("vm_file", "vm_start", "vm_end", "vm_mm", "vm_pgoff"),
    "vm_fault": ("vma", "pgoff", "address", "real_address"),
    "vm_unmapped_area_info": ("length",),
    "mem_cgroup_per_node": ("memcg", "lruvec"),
    "oom_control": ("memcg", "gfp_mask", "order", "totalpages", "constraint"),
    "mnt_namespace": ("ns.inum",),
    "pid_namespace": ("child_reaper",),
    "nsproxy": ("mnt_ns", "pid_ns_for_children"),
    "fdtable": ("fd",),
    "files_struct": ("fdt",),
    "task_struct": (
        *("pid", "tgid", "flags", "comm", "start_boottime", "se.sum_exec_runtime", "real_parent"),
        *("group_leader", "cgroups", "mm", "signal", "cred", "files", "nsproxy"),
        *("active_memcg", "memcg_nr_pages_over_high", "in_iowait", "nvcsw", "nivcsw"),
        *("thread.fsbase", "thread.uw.tp_value", "thread_pid", "exit_code", "seccomp.mode"),
    ),
    "reclaim_stat": RECLAIM_COUNTS,
    "shrink_control": ("memcg",),
    "hrtimer": ("is_soft",),
    "bio_vec": ("bv_page",),
    "bio": ("bi_opf", "bi_flags", "bi_next", "bi_io_vec", "bi_iter.bi_size"),
    "request": ("__data_len", "bio"),
    "trace_event_raw_mm_vmscan_direct_reclaim_begin_template": ("memcg_id",),
}
"""Structure -> the members that the programs read; a structure follows the structures that it contains by
value.

A member after a dot is declared by its own name, whatever union or structure is around it. If that differs by
release, both paths are listed: dentry.d_u is gone in v7.1; mm_struct.rss_stat is an array since f1a7941243c1
("mm: convert mm's rss stats into percpu_counter"), v6.2.
"""

ENUMERATORS: Final = (
    *("memory_cgrp_id", "CSS_ONLINE", "CSS_DYING", "CSS_RELEASED"),
    *("MEMCG_LOW", "MEMCG_HIGH", "MEMCG_MAX", "MEMCG_OOM", "MEMCG_OOM_KILL", "MEMCG_OOM_GROUP_KILL"),
    *("MEMCG_SWAP_HIGH", "MEMCG_SWAP_MAX", "MEMCG_SWAP_FAIL", "MEMCG_SOCK_THROTTLED"),
    *("PSI_MEM_SOME", "PSI_MEM_FULL"),
    *("PG_head", "PG_swapbacked", "PG_uptodate", "AS_EXITING"),
    *(
        "PG_dirty",
        "PG_writeback",
        "PG_active",
        "PG_unevictable",
        "PGTY_buddy",
        "PGTY_hugetlb",
        "PGTY_large_kmalloc",
    ),
    *("REQ_OP_READ", "REQ_OP_WRITE", "__REQ_SWAP", "BIO_CLONED"),
    *(item for category in CATEGORIES for item in category.items),
    *("MM_FILEPAGES", "MM_ANONPAGES", "MM_SHMEMPAGES", "MM_SWAPENTS"),
    *("VMSCAN_THROTTLE_WRITEBACK", "VMSCAN_THROTTLE_ISOLATED"),
    *("VMSCAN_THROTTLE_NOPROGRESS", "VMSCAN_THROTTLE_CONGESTED"),
    *("CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY", "CONSTRAINT_MEMCG"),
)
"""The enumerators that the programs use; one that this kernel lacks is not defined."""


KERNEL_FUNCTIONS: Final = 1 << 30
"""Added to the type id of a function of the kernel, which programs then call as if it were a helper: BCC can
compile no other call. No helper has such a number."""


def why_unfit(btf: Btf) -> str | None:
    """Return why the programs cannot be compiled for this kernel: it lacks a structure that all of them read.
    None if they can.

    struct folio exists since 7b230db3b8d3 ("mm: Introduce struct folio"), v5.16.
    """
    if btf.struct("mem_cgroup") is None:
        return "the kernel has no struct mem_cgroup: it is built without CONFIG_MEMCG"
    if btf.struct("folio") is None:
        return "the kernel has no struct folio, which came with 5.16: boot a later one"
    return None


_PAUSE_FROM_THE_END: Final = 2
"""The place of `pause` among the arguments of writeback:balance_dirty_pages: the second to last, on all
releases."""


def header(btf: Btf) -> str:
    """Return the text of the header for one kernel."""
    values = btf.enumerators
    lines = [f"#define KERNEL_ENUM_{name} {values[name]}" for name in ENUMERATORS if name in values]
    known = {name for name in STRUCTS if btf.struct(name) is not None}
    lines += ["#define RECLAIM_COUNTS_ARE_NODE_STATS 1"] * reclaim_counts_are_node_stats(btf)
    lines += ["#define HUGETLB_INDEX_IS_OF_HUGE_PAGES 1"] * hugetlb_index_is_of_huge_pages(btf)
    lines += ["#define SLAB_COUNTERS_PASS_TO_PARENT 1"] * slab_counters_pass_to_parent(btf)
    pause = len(btf.tracepoint_arguments("balance_dirty_pages") or (0, 0)) - _PAUSE_FROM_THE_END
    lines += [f"#define KERNEL_PAUSE_ARGUMENT {pause}"]
    lines += _cast(btf)
    lines += [f"struct {name};" for name in sorted(known)]
    for name in STRUCTS:
        if name in known:
            lines += _struct(btf, name, known)
    return "\n".join(lines) + "\n"


_CAST_TO: Final = ("timespec64", "task_struct", "folio")


def _cast(btf: Btf) -> list[str]:
    """Define the type ids by which a program loads a number from any address (LOAD_AT) and casts a pointer
    (UNTRUSTED), if this kernel can.

    bpf_rdonly_cast() exists since a35b9af4ec2c ("bpf: Add a kfunc for generic type cast"), v6.2.
    """
    function = btf.function("bpf_rdonly_cast")
    types = {name: btf.struct(name) for name in _CAST_TO}
    if function is None or None in types.values():
        return []
    return [
        f"#define KERNEL_FUNC_bpf_rdonly_cast {KERNEL_FUNCTIONS + function}",
        *(f"#define KERNEL_STRUCT_{name} {number}" for name, number in types.items()),
    ]


def reclaim_counts_are_node_stats(btf: Btf | KnownTypes) -> bool:
    """Return whether PGSCAN_* and PGSTEAL_* belong to enum node_stat_item, and not to vm_event_item.

    They do since "mm: move pgscan, pgsteal, pgrefill to node stats", v7.1. The members of an enum are
    adjacent in `enumerators`.
    """
    order = list(btf.enumerators)
    members = ("NR_LRU_BASE", "PGSTEAL_DIRECT", "NR_VM_NODE_STAT_ITEMS")
    if not all(name in btf.enumerators for name in members):
        return False
    first, steal, end = (order.index(name) for name in members)
    return first < steal < end


def hugetlb_index_is_of_huge_pages(btf: Btf) -> bool:
    """Return whether the index of a hugetlbfs folio counts huge pages.

    It did until a08c7193e4f1 ("mm/filemap: remove hugetlb special casing in filemap.c"), v6.7, removed the
    function that converts it.
    """
    return btf.function_arguments("hugetlb_basepage_index") is not None


def slab_counters_pass_to_parent(btf: Btf) -> bool:
    """Return whether the kernel adds the counters of slab of a removed cgroup to those of its parent.

    reparent_memcg_lruvec_state_local() does so (seen on 7.3). The function was at first for cgroup v1 alone,
    called by reparent_memcg1_lruvec_state_local() in mm/memcontrol-v1.c, and then not for slab.
    """
    functions = ("reparent_memcg_lruvec_state_local", "reparent_memcg1_lruvec_state_local")
    return [btf.function_arguments(name) is not None for name in functions] == [True, False]


def _struct(btf: Btf, name: str, known: set[str]) -> list[str]:
    type_id = btf.struct(name)
    assert type_id is not None
    present = {
        m.rpartition(".")[2]: found for m in STRUCTS[name] if (found := _member(btf, type_id, m)) is not None
    }
    lines = [f"#define HAS_{name}_{member} 1" for member in present]
    lines += [
        f"#define KERNEL_BITS_{name}_{member} {(1 << found.bits) - 1 << found.first_bit:#x}ULL"
        for member, found in present.items()
        if found.bits
    ]
    lines += [f"struct {name} {{", "\tunion {", f"\t\tchar whole_[{max(btf.size_bytes(type_id), 1)}];"]
    for member, found in present.items():
        pad = f"char pad_{member}_[{found.offset_bytes}]; " if found.offset_bytes else ""
        lines.append(
            f"\t\tstruct {{ {pad}{_declaration(btf, found, member, known)}; }} __attribute__((packed));"
        )
    return [*lines, "\t};", "};"]


def _member(btf: Btf, type_id: int, path: str) -> Member | None:
    """Return a member by a dotted path, with its offset from the beginning of the outermost structure."""
    name, _, rest = path.partition(".")
    found = btf.member(type_id, name)
    if found is None or not rest:
        return found
    inner = _member(btf, btf.resolve(found.type_id), rest)
    return inner and inner.inside(found)


def _declaration(btf: Btf, member: Member, name: str, known: set[str]) -> str:
    """Return the declaration of a member in C: an array as an array, a bitfield as `bits_of_<name>`, the
    bytes that hold it."""
    if member.bits:
        least = next((bits for bits in (8, 16, 32, 64) if member.first_bit + member.bits <= bits), None)
        if least is None:
            raise BtfError(f"it has a bitfield of {member.bits} bits")
        return f"u{least} bits_of_{name}"
    type_id = btf.resolve(member.type_id)
    if btf.kind(type_id) == ARRAY:
        element, count = btf.array(type_id)
        return f"{_c_type(btf, element, known)} {name}[{count}]"
    return f"{_c_type(btf, type_id, known)} {name}"


def _c_type(btf: Btf, type_id: int, known: set[str]) -> str:
    """Return the C type of a value: an integer of its size, a pointer to a known structure, or else bytes."""
    type_id = btf.resolve(type_id)
    kind = btf.kind(type_id)
    size = btf.size_bytes(type_id) if kind else 0
    if kind == PTR:
        return f"{_pointee(btf, btf.target(type_id), known)} *"
    if kind == INT:
        return f"{'s' if btf.is_signed(type_id) else 'u'}{8 * size}"
    if kind in (ENUM, ENUM64):
        return f"u{8 * size}"
    if kind in (STRUCT, UNION):
        if btf.name(type_id) in known:
            return f"struct {btf.name(type_id)}"
        if size in (1, 2, 4, 8):  # a number in a wrapper: atomic_t, kuid_t, memdesc_flags_t
            return f"{'s' if 'atomic' in btf.name(type_id) else 'u'}{8 * size}"
    return f"struct {{ char bytes_[{size}]; }}"


def _pointee(btf: Btf, type_id: int, known: set[str]) -> str:
    """Return the C type that a pointer points to: a known structure, a pointer to one, or void."""
    type_id = btf.resolve(type_id)
    if btf.kind(type_id) == PTR:
        inner = btf.resolve(btf.target(type_id))
        return "void *" if btf.kind(inner) == PTR else f"{_pointee(btf, inner, known)} *"
    if btf.kind(type_id) == STRUCT and btf.name(type_id) in known:
        return f"struct {btf.name(type_id)}"
    return "void"
