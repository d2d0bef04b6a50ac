// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Programs for calibration and for exact readings of a memcg's counters. Most are run by user space
 * (BPF_PROG_TEST_RUN), with their arguments in ctx->args.
 */

#include "shared/counters.h"
#include "shared/tracked.h"

/* The result of a program. */
struct answer {
	u64 memcg;
	u64 cgroup_id;
	u64 cgroup_root;
	struct memcg_counters counters;
};

BPF_ARRAY(answer, struct answer, 1);
BPF_PERCPU_ARRAY(landmark, u64, 1);

/*
 * Find where this CPU keeps its copy of per-CPU memory, without the symbol __per_cpu_offset
 * (kallsyms has data symbols only with CONFIG_KALLSYMS_ALL). Our own per-CPU map has a per-CPU
 * pointer (bpf_array.pptrs), and a look-up in it returns this CPU's copy. The difference holds for
 * every per-CPU pointer.
 *
 * args: the kernel address of the map `landmark`. User space runs it on each CPU.
 */
PROGRAM(find_cpu_offset)
{
	u32 zero = 0;
	u32 cpu = bpf_get_smp_processor_id();
	u64 *copy = landmark.lookup(&zero);
	volatile u64 *offset = cpu_offsets.lookup(&cpu);
	struct bpf_array *map = (struct bpf_array *)ctx->args[0];

	if (!copy || !offset || !map)
		return 1;
	/* Through memory: the verifier allows no arithmetic on a known pointer. */
	*offset = (u64)copy;
	*offset -= (u64)READ(map, pptrs[0]);
	return 0;
}

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
 * Find where the registers saved at kernel entry lie on a task's stack: at its top, below a padding
 * that depends on the configuration (THREAD_SIZE, and TOP_OF_KERNEL_STACK_PADDING with FRED). The
 * program runs inside bpf(2), whose number is known, and tries the possible places. args: that
 * number.
 */
PROGRAM(find_registers)
{
	struct calibration *known = calibrated();
	char *stack = READ(current_task(), stack);

	if (!known)
		return 1;
#pragma unroll
	for (u32 order = 13; order <= 17; order++) {
#pragma unroll
		for (u32 padding = 0; padding <= 16; padding += 16) {
			u64 offset = (1UL << order) - sizeof(struct pt_regs) - padding;
			struct pt_regs *regs = (struct pt_regs *)(stack + offset);
#if defined(HAS_pt_regs_orig_ax)
			u64 call = READ(regs, orig_ax);
#elif defined(HAS_pt_regs_syscallno)
			u64 call = READ(regs, syscallno);
#else
			u64 call = ~0UL;
#endif
			if (call == ctx->args[0]) {
				known->regs_offset = offset;
				return 0;
			}
		}
	}
	return 1;
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
	out->cgroup_id = READ(node, id);
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
	end_generation();
	return 0;
}

/* Read a memcg's own counters. args: its address. Return 1 if they could not be read. */
PROGRAM(read_memcg)
{
	u32 zero = 0;
	struct mem_cgroup *memcg = (struct mem_cgroup *)ctx->args[0];
	struct answer *out = answer.lookup(&zero);

	if (!out)
		return 1;

	CLEAR(&out->counters);
	out->memcg = (u64)memcg;
	out->cgroup_id = memcg_id(memcg);
	return !sum_counters(out->counters.state, memcg);
}

/*
 * Snapshots of counters, from which user space learns which position of memcg_vmstats_percpu.state
 * belongs to which item (tracer/capture/learn/calibration.py). The kernel keeps this mapping in a
 * table whose address is a data symbol (mem_cgroup_stats_index, since ff48c71c26aa ("memcg: reduce
 * memory for the lruvec and memcg stats"), v6.10). But between two updates of one memcg on one CPU,
 * only one position changes: that of the second update if the hook comes after the change, that of
 * the first if it comes before, at the entry of a function.
 */
BPF_RINGBUF_OUTPUT(watched_ring, WATCHED_RING_PAGES);

static __always_inline int watch(struct mem_cgroup *memcg, u32 item)
{
	struct memcg_vmstats_percpu *stats = this_cpu_stats(memcg);
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
	bpf_probe_read_kernel(record->state, sizeof(stats->state), &stats->state);
	watched_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

PROGRAM(watch_mod_memcg_lruvec_state)
{
	return watch((struct mem_cgroup *)ctx->args[0], ctx->args[1]);
}

PROGRAM(watch_mod_memcg_state)
{
	return watch((struct mem_cgroup *)ctx->args[0], ctx->args[1]);
}

static __always_inline int watch_enter_lruvec_state(struct call *call)
{
	return watch(memcg_of_lruvec(call->args[0]), call->args[1]);
}

static __always_inline int watch_enter_node_state(struct call *call)
{
	return watch(memcg_of_node(call->args[0]), call->args[1]);
}

static __always_inline int watch_enter_memcg_state(struct call *call)
{
	return watch((struct mem_cgroup *)call->args[0], call->args[1]);
}
