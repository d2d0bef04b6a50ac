/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Runs of the page cache: folios of one file, owner, process and cause that are added or deleted
 * one after the other. Each CPU has a run of additions and one of deletions under way. A folio that
 * continues a run costs a comparison. A run is sent when a folio does not continue it (one that
 * comes 10 ms after its first never does), and with the sums of its CPU (charge.bpf.c).
 *
 * If the ring is full, a run stays under way until a folio does not continue it. From then on runs
 * are summed (page_sums.h), and a run may have gaps: it is then a sum, without an index.
 */
#ifndef MEMCG_TRACER_RUNS_H
#define MEMCG_TRACER_RUNS_H

#include "page_sums.h"
#include "tracked.h"

#define PAGECACHE_WAKE_BYTES (SETTING(pagecache_ring_bytes) / 2)
/* Records of a CPU between two readings of the ring's fill level: a reading is expensive. */
#define PAGECACHE_WAKE_EVERY 16

BPF_RINGBUF_OUTPUT(pagecache_ring, SIZED_BY_LOADER);

struct run {
	struct pagecache_event record; /* without a folio: no run is under way */
	struct address_space *mapping;
	u64 next; /* the index at which the next folio continues the run */
	u64 first_ticks; /* when the first folio came, in timer ticks */
	struct cgroup_subsys_state *actor; /* of the acting task, for the memory controller */
	s64 call; /* of the thread that added the last folio, as in struct event */
	u32 pid;
	u32 generation; /* in which `actor` is valid */
	u32 i_generation;
};

/*
 * `busy` is the lock of these runs. A program that finds it set does not touch them. A flag is
 * enough: between its test and its change, another program can only come and go.
 */
struct page_runs {
	struct run runs[2]; /* enum op */
	struct mem_cgroup *owner; /* the last one, known for a generation */
	u64 owner_id;
	u32 generation;
	u8 is_wanted;
	u8 follow; /* enum follow */
	u8 number; /* of the set */
	u8 pad;
	u32 busy;
	u32 sent; /* records */
};

/*
 * The second set is for folios that other tasks delete while a task is preempted inside the program
 * of an addition, which is possible since "tracing: Guard __DECLARE_TRACE() use of
 * __DO_TRACE_CALL() with SRCU-fast" (a46023d5616e, v7.0). A third is not needed: deletions are
 * recorded with interrupts disabled. Folios that other tasks add meanwhile are lost: the kernel
 * runs no program inside itself on one CPU, and counts these events (Programs.skipped).
 */
struct cpu_runs {
	struct page_runs sets[2];
};

BPF_PERCPU_ARRAY(page_runs, struct cpu_runs, 1);

static __always_inline bool are_busy(struct page_runs *runs)
{
	return ((volatile struct page_runs *)runs)->busy;
}

/* From time to time, wake the recorder if the ring is half full. */
static __always_inline u64 pagecache_wake_flag(struct page_runs *runs)
{
	if (++runs->sent % PAGECACHE_WAKE_EVERY ||
	    pagecache_ring.ringbuf_query(BPF_RB_AVAIL_DATA) <= PAGECACHE_WAKE_BYTES)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

/* Return whether to sum a run. A run with gaps is a sum, even if runs are sent again. */
static __always_inline bool is_summed(struct run *run)
{
	return run->record.index == NO_INDEX || is_summing();
}

/* Send a run. Return false if the ring is full; the run then stays under way. */
static __always_inline bool send_run(struct page_runs *runs, struct run *run, u64 now_ns)
{
	struct pagecache_event *record = pagecache_ring.ringbuf_reserve(sizeof(*record));

	if (!record)
		return false;
	/* The duration is in whole ticks: it must not end in the future. */
	if (run->record.duration_ns > now_ns - run->record.time_ns)
		run->record.duration_ns = now_ns - run->record.time_ns;
	__builtin_memcpy(record, &run->record, sizeof(*record));
	pagecache_ring.ringbuf_submit(record, pagecache_wake_flag(runs));
	run->record.folios = 0;
	return true;
}

/* Send or sum a run. The arguments are set << 1 | enum op, and the time. */
SUBPROGRAM(end_run)
{
	u32 zero = 0;
	struct cpu_runs *cpu = page_runs.lookup(&zero);
	struct page_runs *runs;
	struct run *run;

	if (!cpu)
		return 0;
	runs = &cpu->sets[FIRST_ARGUMENT >> 1 & 1];
	run = &runs->runs[FIRST_ARGUMENT & 1];
	if (!run->record.folios)
		return 0;
	if (!is_summed(run)) {
		if (send_run(runs, run, SECOND_ARGUMENT))
			return 0;
		begin_summing();
	}
	sum_run(&run->record, SECOND_ARGUMENT);
	run->record.folios = 0;
	return 0;
}

/* Send or sum a run, unless a program is adding to it. The argument is set << 1 | enum op. */
SUBPROGRAM(send_waiting_run)
{
	u32 zero = 0;
	struct cpu_runs *cpu = page_runs.lookup(&zero);
	struct page_runs *runs;
	struct run *run;

	if (!cpu)
		return 1;
	runs = &cpu->sets[FIRST_ARGUMENT >> 1 & 1];
	run = &runs->runs[FIRST_ARGUMENT & 1];
	if (are_busy(runs))
		return 0;
	if (is_summed(run))
		CALL(end_run, FIRST_ARGUMENT, bpf_ktime_get_ns());
	else if (run->record.folios)
		send_run(runs, run, bpf_ktime_get_ns());
	return 0;
}

/* Send or sum this CPU's runs. */
static __always_inline void send_runs(void)
{
	u64 nothing = 0;

	LOOP(send_waiting_run, 4, &nothing);
}

#endif
