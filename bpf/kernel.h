/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading the kernel's structures. Their layout comes from the running kernel's BTF (tracer/kernel/layout.py), which
 * stands before this file when BCC compiles it.
 */
#ifndef MEMCG_TRACER_KERNEL_H
#define MEMCG_TRACER_KERNEL_H

/* A raw tracepoint's program; the loader attaches it by name (tracer/kernel/probes.py). */
#define PROGRAM(name) int name(struct bpf_raw_tracepoint_args *ctx)

/* A member of a kernel object; 0 where the memory cannot be read, since the helper clears what it cannot fill. */
#define READ(ptr, member)                                                                     \
	({                                                                                    \
		typeof((ptr)->member) value_;                                                 \
		bpf_probe_read_kernel(&value_, sizeof(value_), (const void *)&(ptr)->member); \
		value_;                                                                       \
	})

/* include/linux/memcontrol.h: memcg_data's low bits say what the rest points to. */
#define MEMCG_DATA_OBJEXTS 1
#define MEMCG_DATA_KMEM 2
#define MEMCG_DATA_FLAGS_MASK 7

/* include/linux/sched.h; has not moved since it was introduced. */
#define PF_KSWAPD 0x00020000

/* Set an object to zero by reading it from nowhere: LLVM's BPF target has no memset for large ones. */
#define CLEAR(ptr) bpf_probe_read_kernel(ptr, sizeof(*(ptr)), NULL)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define MAX_DEPTH 16 /* of nested cgroups that are looked at */

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* The id of a memcg: the inode number of its directory, on v1 and v2 alike. */
static __always_inline u64 memcg_id(struct mem_cgroup *memcg)
{
	struct cgroup *cgroup = READ(memcg, css.cgroup);

	return READ(READ(cgroup, kn), id);
}

/* css is the first member of struct mem_cgroup (mem_cgroup_from_css in memcontrol.h relies on container_of). */
static __always_inline struct mem_cgroup *memcg_from_css(struct cgroup_subsys_state *css)
{
	return css ? (struct mem_cgroup *)((char *)css - offsetof(struct mem_cgroup, css)) : NULL;
}

static __always_inline struct mem_cgroup *memcg_parent(struct mem_cgroup *memcg)
{
	return memcg_from_css(READ(memcg, css.parent));
}

static __always_inline struct mem_cgroup *task_memcg(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);

	return memcg_from_css(READ(set, subsys[KERNEL_ENUM_memory_cgrp_id]));
}

/* Whom current's allocations are charged to: set_active_memcg() overrides the task's own memcg. */
static __always_inline struct mem_cgroup *charged_memcg(struct task_struct *task)
{
#ifdef HAS_task_struct_active_memcg
	struct mem_cgroup *active = READ(task, active_memcg);

	if (active)
		return active;
#endif
	return task_memcg(task);
}

/*
 * Whether every folio is charged by way of an obj_cgroup, and not only those of the kernel: since "mm: memcontrol:
 * eliminate the problem of dying memory cgroup for LRU folios" (7.1). The change before it in the same series ("convert
 * objcg to be per-memcg per-node type") gave struct obj_cgroup the member that tells.
 */
#ifdef HAS_obj_cgroup_is_root
#define MEMCG_DATA_IS_OBJCG true
#else
#define MEMCG_DATA_IS_OBJCG false
#endif

/* The owner of a page-cache folio; NULL where it is charged to nobody. */
static __always_inline struct mem_cgroup *folio_memcg(struct folio *folio)
{
	u64 data = READ(folio, memcg_data);
	u64 pointer = data & ~(u64)MEMCG_DATA_FLAGS_MASK;

	if (!pointer || data & MEMCG_DATA_OBJEXTS)
		return NULL;
	if (MEMCG_DATA_IS_OBJCG || data & MEMCG_DATA_KMEM)
		return READ((struct obj_cgroup *)pointer, memcg);
	return (struct mem_cgroup *)pointer;
}

/*
 * Pages of a folio. A large folio has PG_head set and keeps its order in the low byte of the first tail page's flags
 * (folio_order in include/linux/mm.h).
 */
static __always_inline u32 folio_nr_pages(struct folio *folio)
{
	if (!(READ(folio, flags) & (1UL << KERNEL_ENUM_PG_head)))
		return 1;
	return 1U << (READ(folio, _flags_1) & 0xff);
}

struct counter {
	u64 usage_pages;
	u64 limit_pages;
};

static __always_inline struct counter read_counter(struct page_counter *counter)
{
	struct counter value = {
		.usage_pages = READ(counter, usage),
		.limit_pages = READ(counter, max),
	};
	return value;
}

#endif
