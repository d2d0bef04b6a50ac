// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Programs for calibration. Most are run by user space (BPF_PROG_TEST_RUN), with their arguments in
 * ctx->args.
 */

#include "shared/tracked.h"

/* The result of a program. */
struct answer {
	u64 memcg;
	u64 cgroup_root;
};

BPF_ARRAY(answer, struct answer, 1);

/*
 * A per-CPU array whose value of any CPU, offline ones included, can be looked up: by
 * bpf_map_lookup_percpu_elem(), since 07343110b293 ("bpf: add bpf_map_lookup_percpu_elem for percpu
 * map"), v5.19. BCC has no method for it, so `lookup` has the CPU as a third argument here.
 */
struct landmark_table {
	u32 key;
	u64 leaf;
	u64 *(*lookup)(u32 *key, u32 cpu);
	u32 max_entries;
	int flags;
};
__attribute__((section("maps/percpu_array"))) struct landmark_table landmark = {.max_entries = 1};

static __always_inline u64 *find_offset(u32 *cpu)
{
	return cpu_offsets.lookup(cpu);
}

#define bpf_map_lookup_elem bpf_map_lookup_percpu_elem

/*
 * Find where each CPU keeps its copy of per-CPU memory, without the symbol __per_cpu_offset
 * (kallsyms has data symbols only with CONFIG_KALLSYMS_ALL). Our own per-CPU map has a per-CPU
 * pointer (bpf_array.pptrs), and a look-up in it returns a CPU's copy. The difference holds for
 * every per-CPU pointer. args: the kernel address of the map `landmark`.
 */
PROGRAM(find_cpu_offsets)
{
	u32 zero = 0;
	struct bpf_array *map = (struct bpf_array *)ctx->args[0];

	if (!map)
		return 1;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		u64 *copy = landmark.lookup(&zero, cpu);
		u32 key = cpu;
		volatile u64 *offset = find_offset(&key);

		if (!copy || !offset)
			continue;
		/* Through memory: the verifier allows no arithmetic on a known pointer. */
		*offset = (u64)copy;
		*offset -= (u64)READ(map, pptrs[0]);
	}
	return 0;
}

#undef bpf_map_lookup_elem

/*
 * Find the kernel address of one of our maps. args: its file descriptor. The result is in
 * `answer.memcg`.
 */
PROGRAM(find_map)
{
	u32 zero = 0;
	struct answer *out = answer.lookup(&zero);

	if (!out)
		return 1;
	out->memcg = (u64)READ(file_of(ctx->args[0]), private_data);
	return 0;
}

/*
 * Find the memcg of a cgroup directory, and the root of its hierarchy. args: a descriptor of the
 * directory.
 */
PROGRAM(find_memcg)
{
	u32 zero = 0;
	struct answer *out = answer.lookup(&zero);
	struct inode *inode = READ(file_of(ctx->args[0]), f_inode);
	struct kernfs_node *node = (struct kernfs_node *)READ(inode, i_private);
	struct cgroup *cgroup = (struct cgroup *)READ(node, priv);

	if (!out)
		return 1;
	out->memcg = (u64)memcg_from_css(READ(cgroup, subsys[KERNEL_ENUM_memory_cgrp_id]));
	out->cgroup_root = (u64)READ(cgroup, root);
	return 0;
}

/*
 * End the generation: user space has changed `roots`. args: whether new cgroups are undecided from
 * now on (follow_new).
 */
PROGRAM(look_again)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	if (!now)
		return 1;
	now->is_open = ctx->args[0];
	change_roots();
	return 0;
}

/*
 * Snapshots of counters, from which user space learns which position of memcg_vmstats_percpu.state
 * (or .events) belongs to which item (tracer/capture/learn/calibration.py). The kernel keeps this
 * mapping in a table whose address is a data symbol (mem_cgroup_stats_index, since ff48c71c26aa
 * ("memcg: reduce memory for the lruvec and memcg stats"), v6.10). But between two updates of one
 * memcg on one CPU, only one position changes: the second update's if the hook comes after the
 * change, and the first update's if it comes before, at the entry of a function.
 */
BPF_RINGBUF_OUTPUT(watched_ring, SIZED_BY_LOADER);

static __always_inline int watch(struct mem_cgroup *memcg, u32 item, u32 offset, u32 bytes)
{
	u64 stats = cpu_stats((u64)READ(memcg, vmstats_percpu), bpf_get_smp_processor_id());
	struct watched_event *record;

	if (!stats)
		return 0;
	record = watched_ring.ringbuf_reserve(sizeof(*record));
	if (!record)
		return 0;
	record->memcg = (u64)memcg;
	record->cpu = bpf_get_smp_processor_id();
	record->item = item;
	CLEAR(&record->state);
	bpf_probe_read_kernel(record->state, bytes, (void *)(stats + offset));
	watched_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Watch an array of struct memcg_vmstats_percpu. */
#define WATCH(memcg, item, array)                                                               \
	watch((struct mem_cgroup *)(memcg), item, offsetof(struct memcg_vmstats_percpu, array), \
	      sizeof(((struct memcg_vmstats_percpu *)0)->array))

PROGRAM(watch_mod_memcg_lruvec_state)
{
	return WATCH(ctx->args[0], ctx->args[1], state);
}

PROGRAM(watch_mod_memcg_state)
{
	return WATCH(ctx->args[0], ctx->args[1], state);
}

PROGRAM(watch_count_memcg_events)
{
	return WATCH(ctx->args[0], ctx->args[1], events);
}

static __always_inline int watch_enter_lruvec_state(struct call *call)
{
	return WATCH(memcg_of_lruvec(call->args[0]), call->args[1], state);
}

static __always_inline int watch_enter_node_state(struct call *call)
{
	return WATCH(memcg_of_node(call->args[0]), call->args[1], state);
}

static __always_inline int watch_enter_memcg_state(struct call *call)
{
	return WATCH(call->args[0], call->args[1], state);
}

static __always_inline int watch_enter_count_events(struct call *call)
{
	return WATCH(call->args[0], call->args[1], events);
}
