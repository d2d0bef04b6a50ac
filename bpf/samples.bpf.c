// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Samples of the traced memcgs. User space runs the programs (BPF_PROG_TEST_RUN), with their
 * arguments in ctx->args, and maps the arrays `sampled` and `samples` (capture/rows/sampler.py).
 */

#include "shared/limits.h"
#include "shared/tracked.h"

/* A memcg to sample; `digest` is the digest of its last sample. */
struct sampled_memcg {
	struct mem_cgroup *memcg; /* NULL: the place is free, or the memcg is gone */
	u64 cgroup_id;
	u64 digest;
	u64 quiet; /* looks that found no change, since the last that did */
};

BPF_F_TABLE("array", u32, struct sampled_memcg, sampled, TRACER_SAMPLED, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct sample_event, samples, TRACER_SAMPLES_A_RUN, BPF_F_MMAPABLE);

#define WORD(member) (offsetof(struct sample_event, member) / sizeof(u64))
#define EVENT(memcg, name) READ(memcg, memory_events[KERNEL_ENUM_MEMCG_##name])

/*
 * Return whether the memcg at this address belongs to the cgroup, and the cgroup was not removed. A
 * memcg cannot be freed while a program looks at it (RCU), and a new memcg at the address of a
 * freed one has another id.
 */
static __always_inline bool is_online(struct mem_cgroup *memcg, u64 id)
{
	u32 flags = READ(memcg, css.flags) & (KERNEL_ENUM_CSS_ONLINE | KERNEL_ENUM_CSS_DYING);

	return flags == KERNEL_ENUM_CSS_ONLINE && memcg_id(memcg) == id;
}

/* Read what only this version of cgroups has. */
static __always_inline void read_version(struct sample_event *sample, struct mem_cgroup *memcg)
{
#ifdef CGROUP_V1
	sample->soft_limit_pages = READ(memcg, soft_limit);
	sample->swap_limit_pages = READ(memcg, memsw.max);
	sample->kernel_pages = READ(memcg, kmem.usage);
	sample->kmem_limit_pages = READ(memcg, kmem.max);
	sample->swappiness = READ(memcg, swappiness);
	sample->oom_kill_disable = READ(memcg, oom_kill_disable);
	sample->under_oom = READ(memcg, under_oom);
	sample->max_events = READ(memcg, memory.failcnt);
	sample->swap_max_events = READ(memcg, memsw.failcnt);
#else
	sample->high_pages = READ(memcg, memory.high);
	sample->low_pages = READ(memcg, memory.low);
	sample->min_pages = READ(memcg, memory.min);
	sample->swap_usage_pages = READ(memcg, swap.usage);
	sample->swap_high_pages = READ(memcg, swap.high);
	sample->swap_limit_pages = READ(memcg, swap.max);
	sample->oom_group = READ(memcg, oom_group);
	sample->max_events = EVENT(memcg, MAX);
	sample->high_events = EVENT(memcg, HIGH);
	sample->low_events = EVENT(memcg, LOW);
	sample->oom_events = EVENT(memcg, OOM);
	sample->oom_group_kill_events = EVENT(memcg, OOM_GROUP_KILL);
	sample->swap_high_events = EVENT(memcg, SWAP_HIGH);
	sample->swap_max_events = EVENT(memcg, SWAP_MAX);
	sample->swap_fail_events = EVENT(memcg, SWAP_FAIL);
#ifdef KERNEL_ENUM_MEMCG_SOCK_THROTTLED /* seen on 7.3, not on 6.18 */
	sample->sock_throttled_events = EVENT(memcg, SOCK_THROTTLED);
#endif
#endif
}

/*
 * Return the pressure stall information of a memcg; NULL: it has none (psi=0), as on v1.
 */
static __always_inline struct psi_group *memcg_psi(struct mem_cgroup *memcg)
{
#ifdef CGROUP_V1
	return NULL;
#else
	return READ(READ(memcg, css.cgroup), psi);
#endif
}

/*
 * Read everything. The totals of pressure are those that the kernel last added up, at most 2 s ago
 * while tasks run (psi_avgs_work in kernel/sched/psi.c).
 */
static __always_inline void read_sample(struct sample_event *sample, struct mem_cgroup *memcg)
{
	struct memcg_vmstats *stats = READ(memcg, vmstats);
	struct psi_group *psi = memcg_psi(memcg);
	s64 *words = (s64 *)sample;

	_Static_assert(sizeof(stats->state) / sizeof(s64) <= TRACER_STATE_ITEMS, "state");
	_Static_assert(TRACER_STATE_ITEMS + sizeof(stats->events) / sizeof(s64) <= TRACER_COUNTERS,
		       "events");
#pragma unroll
	for (u32 word = WORD(usage_pages); word < WORD(has_psi); word++)
		words[word] = -1;
	sample->usage_pages = READ(memcg, memory.usage);
	sample->limit_pages = READ(memcg, memory.max);
	sample->oom_kill_events = EVENT(memcg, OOM_KILL);
	read_version(sample, memcg);
	SET_EFFECTIVE(sample, memcg);
	sample->has_psi = READ(psi, enabled);
	sample->psi_some_total_us = READ(psi, total[KERNEL_ENUM_PSI_MEM_SOME]) / 1000;
	sample->psi_full_total_us = READ(psi, total[KERNEL_ENUM_PSI_MEM_FULL]) / 1000;
	bpf_probe_read_kernel(sample->counters, sizeof(stats->state), &stats->state);
	bpf_probe_read_kernel(sample->counters + TRACER_STATE_ITEMS, sizeof(stats->events),
			      &stats->events);
}

#define LANES 4
#define WORDS (sizeof(struct sample_event) / sizeof(u64))
#define FIRST_OF_REST (WORDS - (WORDS - WORD(cgroup_id)) % LANES) /* words that fill no step */

/*
 * Return a digest of all values. Each step is a bijection, so a change of one value always changes
 * it. The lanes are independent: the CPU works on them at the same time.
 */
static __always_inline u64 digest_of(struct sample_event *sample)
{
	u64 *words = (u64 *)sample;
	u64 lanes[LANES] = {1, 2, 3, 4};

#pragma clang loop unroll(disable)
	for (u32 word = WORD(cgroup_id); word < FIRST_OF_REST; word += LANES) {
#pragma unroll
		for (u32 lane = 0; lane < LANES; lane++)
			lanes[lane] = (lanes[lane] ^ words[word + lane]) * 0x9e3779b97f4a7c15;
	}
#pragma unroll
	for (u32 word = FIRST_OF_REST; word < WORDS; word++)
		lanes[word - FIRST_OF_REST] ^= words[word] * 0x9e3779b97f4a7c15;
	return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

/* A run over some memcgs, as it proceeds. */
struct sampling {
	u64 first;
	u64 most_quiet;
	u64 time_ns;
	u64 changed; /* a bit for each sample */
};

SUBPROGRAM(sample_next)
{
	struct sampling *sampling = (struct sampling *)SECOND_ARGUMENT;
	u32 place = FIRST_ARGUMENT;
	u32 slot = sampling->first + place;
	struct sampled_memcg *known = sampled.lookup(&slot);
	struct sample_event *sample = samples.lookup(&place);
	u64 digest;

	if (!known || !known->memcg || !sample)
		return 0;
	if (known->quiet++ > sampling->most_quiet)
		return 0;
	if (!is_online(known->memcg, known->cgroup_id)) {
		known->memcg = NULL;
		return 0;
	}
	sample->time_ns = sampling->time_ns;
	sample->cgroup_id = known->cgroup_id;
	read_sample(sample, known->memcg);
	digest = digest_of(sample);
	if (digest == known->digest)
		return 0;
	known->digest = digest;
	known->quiet = 0;
	sampling->changed |= 1U << FIRST_ARGUMENT;
	return 0;
}

/*
 * Write samples of the memcgs in `sampled`. args: the first of them; their number, at most
 * TRACER_SAMPLES_A_RUN; and the number of looks after which a memcg without a change is left out: a
 * look costs cache misses. Return a bit for each sample that differs from the last one of its
 * memcg.
 */
PROGRAM(sample_memcgs)
{
	struct sampling sampling = {
		.first = ctx->args[0],
		.most_quiet = ctx->args[2],
		.time_ns = bpf_ktime_get_ns(),
	};

	if (ctx->args[1] <= TRACER_SAMPLES_A_RUN)
		LOOP(sample_next, ctx->args[1], &sampling);
	return sampling.changed;
}

/*
 * Find memcgs whose statistics a reader of memory.stat would flush (memcg_vmstats_needs_flush in
 * mm/memcontrol.c). args: the number of updates above which it does, and the memcgs. Return a bit
 * for each of them. Before 8d59d2214c23 ("mm: memcg: make stats flushing threshold per-memcg"),
 * v6.8, the kernel counts the updates of all memcgs together, and any reader may flush.
 */
PROGRAM(find_unflushed)
{
	u32 found = 0;

#pragma unroll
	for (u32 number = 1; number < TEST_RUN_ARGS; number++) {
		struct mem_cgroup *memcg = (struct mem_cgroup *)ctx->args[number];
#ifdef HAS_memcg_vmstats_stats_updates
		u64 updates = READ(READ(memcg, vmstats), stats_updates);
#else
		u64 updates = number == 1 ? ~0ULL : 0;
#endif

		if (memcg && updates > ctx->args[0])
			found |= 1U << number;
	}
	return found;
}

/* A search for stalls that are not in the totals of a memcg. */
struct stall_search {
	char *psi_pcpu;
	u64 is_stalled;
};

/*
 * Find out whether a CPU has a stall for memory that was not added to the totals of
 * memory.pressure, or has one now (get_recent_times in kernel/sched/psi.c). These totals belong to
 * PSI_AVGS, the first half of `times_prev`.
 */
SUBPROGRAM(look_for_stall)
{
	struct stall_search *search = (struct stall_search *)SECOND_ARGUMENT;
	u32 cpu = FIRST_ARGUMENT;
	u64 *offset = cpu_offsets.lookup(&cpu);

	if (!offset || !*offset)
		return 0;

	struct psi_group_cpu *here = (struct psi_group_cpu *)(search->psi_pcpu + *offset);

	search->is_stalled = READ(here, state_mask) & (1U << KERNEL_ENUM_PSI_MEM_SOME) ||
			     READ(here, times[KERNEL_ENUM_PSI_MEM_SOME]) !=
				     READ(here, times_prev[KERNEL_ENUM_PSI_MEM_SOME]);
	return search->is_stalled ? 1 : 0;
}

static __always_inline bool is_stalled(struct psi_group *psi)
{
	struct stall_search search = {.psi_pcpu = (char *)READ(psi, pcpu)};

	if (search.psi_pcpu)
		LOOP(look_for_stall, TRACER_CPUS, &search);
	return search.is_stalled;
}

/* The memcgs that `find_stalled` examines, by their places in `sampled`; 0: none. */
struct stall_hunt {
	u32 places[16]; /* TEST_RUN_ARGS, rounded up to a power of two */
	u64 found; /* a bit for each */
};

SUBPROGRAM(examine_stall)
{
	struct stall_hunt *hunt = (struct stall_hunt *)SECOND_ARGUMENT;
	u32 place = hunt->places[FIRST_ARGUMENT & (ARRAY_SIZE(hunt->places) - 1)];
	struct sampled_memcg *known = place ? sampled.lookup(&place) : NULL;

	if (known && is_stalled(memcg_psi(known->memcg)))
		hunt->found |= 1U << FIRST_ARGUMENT;
	return 0;
}

/*
 * Find memcgs whose file memory.pressure shows more than their samples. args: places in `sampled`;
 * 0: none. Return a bit for each of them.
 */
PROGRAM(find_stalled)
{
	struct stall_hunt hunt = {};

#pragma unroll
	for (u32 number = 0; number < TEST_RUN_ARGS; number++)
		hunt.places[number] = ctx->args[number];
	LOOP(examine_stall, TEST_RUN_ARGS, &hunt);
	return hunt.found;
}
