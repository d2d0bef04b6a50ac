/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The counter of anonymous pages of each address space, and what is to be sampled again. */
#ifndef MEMCG_TRACER_KNOWN_RSS_H
#define MEMCG_TRACER_KNOWN_RSS_H

#include "held_samples.h"

#ifdef SAMPLES_CODE

/*
 * The anonymous pages of an address space, and the process to which it belongs. `owed_pages`: by
 * how much more was freed of samples than the counter shrank. `freed_ns`: when that was last.
 */
struct known_rss {
	s64 pages;
	u64 owner_tgid;
	s64 owed_pages;
	u64 freed_ns;
};

BPF_TABLE("lru_hash", u64, struct known_rss, rss_pages, 8192); /* by the address of an mm */

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
	}
	range->freed_bytes = 0;
}

#define SETTLED_NS 1000000 /* a call that frees much has an event for each table of pages */

/* Return the pages that are to be sampled again. */
static __always_inline s64 take_owed(u64 mm)
{
	struct known_rss *known = rss_pages.lookup(&mm);
	s64 pages;

	if (!known || known->owed_pages <= 0 || bpf_ktime_get_ns() - known->freed_ns < SETTLED_NS)
		return 0;
	pages = known->owed_pages;
	known->owed_pages = 0;
	return pages;
}

#endif

#endif
