/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The kernel's own counters of a memcg: those of one CPU, and their sums. */
#ifndef MEMCG_TRACER_COUNTERS_H
#define MEMCG_TRACER_COUNTERS_H

#include "../categories.h"
#include "tracked.h"

#define STATE_ITEMS ARRAY_SIZE(((struct memcg_vmstats_percpu *)0)->state)

/* A memcg's own counters, without its descendants, in the kernel's order and units. */
struct memcg_counters {
	s64 state[TRACER_STATE_ITEMS];
};

BPF_PERCPU_ARRAY(one_cpu, struct memcg_counters, 1); /* too large for the stack */

/*
 * Sum a memcg's own counters over the CPUs. The sums are exact at this instant; memory.stat lags
 * until its next flush (mem_cgroup_flush_stats). Return the number of CPUs that were read; 0 = the
 * counters cannot be found.
 */
static __always_inline u32 sum_counters(s64 *state, struct mem_cgroup *memcg)
{
	u32 zero = 0;
	u32 cpus = 0;
	struct memcg_counters *cpu_counters = one_cpu.lookup(&zero);
	char *base = (char *)READ(memcg, vmstats_percpu);

	if (!cpu_counters || !base)
		return 0;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		u32 key = cpu;
		u64 *offset = cpu_offsets.lookup(&key);

		if (!offset || !*offset)
			continue;

		struct memcg_vmstats_percpu *stats =
			(struct memcg_vmstats_percpu *)(base + *offset);

		bpf_probe_read_kernel(cpu_counters->state, sizeof(stats->state), &stats->state);
#pragma clang loop unroll(disable)
		for (u32 item = 0; item < STATE_ITEMS; item++)
			state[item] += cpu_counters->state[item];
		cpus++;
	}
	return cpus;
}

/* memcg -> the counters of this CPU at the last reading, by category, in the kernel's units. */
struct counters_seen {
	s64 values[CATEGORY_COUNT];
};

BPF_TABLE("percpu_hash", struct mem_cgroup *, struct counters_seen, counters_seen, 4096);

/* Return this CPU's copy of a memcg's counters; NULL if it cannot be found. */
static __always_inline struct memcg_vmstats_percpu *this_cpu_stats(struct mem_cgroup *memcg)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 *offset = cpu_offsets.lookup(&cpu);
	char *counters = (char *)READ(memcg, vmstats_percpu);

	return offset && *offset && counters ? (struct memcg_vmstats_percpu *)(counters + *offset)
					     : NULL;
}

/*
 * Return whether the changes of a category are read from the kernel's counter, not from the
 * arguments of a hook. With hooked functions, all categories are: the kernel skips the program of a
 * kprobe while another BPF program runs on the same CPU, or while a task there writes to a BPF map
 * (trace_call_bpf in kernel/trace/bpf_trace.c).
 */
static __always_inline bool is_counted(u32 category)
{
#ifdef LEDGER_BY_FUNCTION
	return true;
#else
	return !is_reported_exactly(category);
#endif
}

/*
 * Return the change of a counter of this CPU since the last reading. `coming` is a change that the
 * kernel is about to make.
 */
static __always_inline s64 unseen_bytes(struct memcg_vmstats_percpu *stats,
					struct counters_seen *seen, u32 category, u32 index,
					s64 coming)
{
	s64 value = READ(stats, state[(index - 1) & (TRACER_STATE_ITEMS - 1)]) + coming;
	s64 delta = value - seen->values[category];

	seen->values[category] = value;
	return delta * unit_bytes(category);
}

/*
 * Return the change of a category, from the kernel's counter. The tracepoint is not exact for
 * kernel memory. It reports whole pages of counters kept in bytes: memcg_state_val_in_pages in
 * mm/memcontrol.c rounds every small update to at least one page. Also, interrupts free kernel
 * memory, most of it by RCU. If an interrupt hits this CPU while our program runs, the kernel skips
 * the interrupt's program (bpf_prog_info.recursion_misses). The counter is exact, so its difference
 * since the last reading is the change. Without a calibrated index, the reported bytes are
 * returned.
 *
 * `coming`: at the entry of a function, the counter does not have the change yet. A change by an
 * interrupt between this reading and the coming change is counted twice, and subtracted at the next
 * reading.
 */
static __always_inline s64 counted_bytes(struct mem_cgroup *memcg, u32 category, s64 reported_bytes,
					 s64 coming)
{
	struct calibration *known = calibrated();
	struct memcg_vmstats_percpu *stats = this_cpu_stats(memcg);
	u32 index = known && category < CATEGORY_COUNT ? known->counter_index[category] : 0;
	struct counters_seen zero = {};

	if (!index || !stats)
		return reported_bytes;

	struct counters_seen *seen = counters_seen.lookup_or_try_init(&memcg, &zero);

	return seen ? unseen_bytes(stats, seen, category, index, coming) : reported_bytes;
}

/*
 * Return the memcg of an lruvec, which is a member of struct mem_cgroup_per_node (mem_cgroup_lruvec
 * in include/linux/memcontrol.h).
 */
static __always_inline struct mem_cgroup *memcg_of_lruvec(u64 lruvec)
{
	return READ((struct mem_cgroup_per_node *)(lruvec -
						   offsetof(struct mem_cgroup_per_node, lruvec)),
		    memcg);
}

static __always_inline struct mem_cgroup *memcg_of_node(u64 node)
{
	return READ((struct mem_cgroup_per_node *)node, memcg);
}

#endif
