/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* By how much each address space has grown, and what of that is to be sampled again. */
#ifndef MEMCG_TRACER_KNOWN_RSS_H
#define MEMCG_TRACER_KNOWN_RSS_H

#include "held_samples.h"

#ifdef SAMPLES_CODE

/*
 * The anonymous pages of an address space, and the process to which it belongs. `owed_pages`: by
 * how much more was freed of samples than the counter shrank. `freed_ns`: when that was last.
 * `freed_by`: the registers of a call that freed samples. `again_pages`: what was owed, and counted
 * as growth since the last sample.
 */
struct known_rss {
	s64 pages;
	u64 owner_tgid;
	s64 owed_pages;
	u64 freed_ns;
	struct pt_regs *freed_by;
	s64 again_pages;
};

BPF_TABLE("lru_hash", u64, struct known_rss, rss_pages, 8192); /* by the address of an mm */

/* Return whether the task with these registers at entry is in a system call that may free memory.
 */
static __always_inline bool is_freeing(struct pt_regs *regs)
{
	return regs && may_free((s64)READ(regs, REGS_NUMBER)) && !is_call_over(regs);
}

/*
 * Note what was freed of samples on this CPU. A sample stands for many pages, and is freed with
 * one: with a page that is used for a moment, while the counter does not shrink. Then others have
 * grown, and their growth is to be sampled again.
 */
static __always_inline void settle(u64 mm)
{
	struct freed_range *range = freed_range();
	struct known_rss *known = rss_pages.lookup(&mm);

	if (!range || !range->freed_bytes)
		return;
	if (known) {
		__sync_fetch_and_add(&known->owed_pages, range->freed_bytes / PAGE_SIZE);
		known->freed_ns = bpf_ktime_get_ns();
		if (!is_freeing(known->freed_by))
			known->freed_by = entry_registers();
	}
	range->freed_bytes = 0;
}

/*
 * A call that frees much has an event for each table of pages. All samples of the range are freed
 * at the first ones, before the counter has shrunk by its pages. Several tasks may free at once.
 */
#define SETTLED_NS 1000000
#define MOST_FREEING_NS 10000000000ULL /* is_call_over() may miss the end of a call */

/* Return the pages that are to be sampled again. */
static __always_inline s64 take_owed(u64 mm)
{
	struct known_rss *known = rss_pages.lookup(&mm);
	u64 passed_ns;
	s64 pages;

	if (!known || known->owed_pages <= 0)
		return 0;
	passed_ns = bpf_ktime_get_ns() - known->freed_ns;
	if (passed_ns < SETTLED_NS || (passed_ns < MOST_FREEING_NS && is_freeing(known->freed_by)))
		return 0;
	pages = known->owed_pages;
	known->owed_pages = 0;
	__sync_fetch_and_add(&known->again_pages, pages);
	return pages;
}

/* Return the growth that was sampled before, up to a sample that is taken now. */
static __always_inline u64 take_again_bytes(u64 mm)
{
	struct known_rss *known = rss_pages.lookup(&mm);
	s64 pages = known ? known->again_pages : 0;

	if (pages)
		__sync_fetch_and_add(&known->again_pages, -pages);
	return pages * PAGE_SIZE;
}

/*
 * The counter of an address space is the sum of what each CPU adds to it once it has this many
 * pages (percpu_counter_batch in lib/percpu_counter.c).
 */
#define FOLDED_PAGES (TRACER_CPUS > 16 ? 2 * TRACER_CPUS : 32)

/*
 * Until f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), v6.2, the counter is the
 * sum of what each task adds to it: at each 66th page fault, before that page is there
 * (check_sync_rss_stat in mm/memory.c), and before it frees memory, executes or ends. Neither the
 * page nor the code that touched the pages is known then, so a sample waits for a page.
 */
#ifdef HAS_mm_struct_count
#define IS_SYNCED true
#define SHOWN_PAGES 66
#define HUGE_PAGES ((s64)(PMD_BYTES / PAGE_SIZE)) /* signed, as growth may be negative */
#else
#define IS_SYNCED false
#define SHOWN_PAGES FOLDED_PAGES
#define HUGE_PAGES (FOLDED_PAGES + 1)
#endif

/* The anonymous pages of the address space that last changed on this CPU, and a sample that waits.
 */
struct last_rss {
	u64 mm;
	s64 pages;
	u64 weight_bytes;
	u32 lag; /* changes, or pages, until the sample is taken; 0: there is none */
};

BPF_PERCPU_ARRAY(last_rss, struct last_rss, 1);

/*
 * Return by how many pages the address space of the current process has grown since the last call
 * for it. If it was not seen before, it is a new program if it has no more than a CPU adds at once;
 * else its pages came before the sampling, or with a fork. The address may be that of an mm which
 * is gone, so what another process had there does not count. Until it executes a program, a child
 * of vfork() or posix_spawn() shares its parent's mm, whose owner stays the parent.
 *
 * A counter that tasks add to shows each page that is used and freed. As later kernels do, a few
 * pages do not count.
 */
static __always_inline s64 rss_growth(struct mm_struct *mm, s64 pages)
{
	struct known_rss now = {.pages = pages, .owner_tgid = READ(READ(mm, owner), tgid)};
	u64 address = (u64)mm;
	struct known_rss *known = rss_pages.lookup(&address);
	s64 grown;

	if (!known || known->owner_tgid != now.owner_tgid) {
		rss_pages.update(&address, &now);
		return pages <= FOLDED_PAGES ? pages : 0;
	}
	grown = pages - known->pages;
	if (IS_SYNCED && grown < FOLDED_PAGES && grown > -FOLDED_PAGES)
		return 0;
	known->pages = pages;
	if (grown < 0)
		__sync_fetch_and_add(&known->owed_pages, grown);
	return grown;
}

/* Another address space changes on this CPU: let the growth of the last one count again. */
static __always_inline void drop_waiting(struct last_rss *last)
{
	u64 mm = last->mm;
	struct known_rss *known = rss_pages.lookup(&mm);

	if (known)
		known->pages -= last->weight_bytes / PAGE_SIZE;
	last->lag = 0;
}

#endif

#endif
