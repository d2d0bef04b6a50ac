/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel's own counts of pages scanned and stolen, by memcg. memory.stat of cgroup v1 does not
 * print them, and the counts of v2 lag there. Up to v7.0 they are memcg events, most of which are
 * page faults: so the program is attached on v1 only. They are node stats since "mm: move pgscan,
 * pgsteal, pgrefill to node stats", v7.1, and reported by the ledger's tracepoint.
 */
#ifndef MEMCG_TRACER_RECLAIM_COUNTS_H
#define MEMCG_TRACER_RECLAIM_COUNTS_H

#include "attempts.h"
#include "tracked.h"

struct reclaim_counts {
	u64 pgscan;
	u64 pgsteal;
};

BPF_HASH(reclaim_counts, u64, struct reclaim_counts, 8192); /* by cgroup id */

/*
 * khugepaged has counts of its own since 57e9cc50f4dd ("mm: vmscan: split khugepaged stats from
 * direct reclaim stats"), v6.2; proactive reclaim has them on later kernels (seen on 6.18, not on
 * 6.12).
 */
static __always_inline bool is_scan(u32 item)
{
	switch (item) {
	case KERNEL_ENUM_PGSCAN_KSWAPD:
	case KERNEL_ENUM_PGSCAN_DIRECT:
#ifdef KERNEL_ENUM_PGSCAN_KHUGEPAGED
	case KERNEL_ENUM_PGSCAN_KHUGEPAGED:
#endif
#ifdef KERNEL_ENUM_PGSCAN_PROACTIVE
	case KERNEL_ENUM_PGSCAN_PROACTIVE:
#endif
		return true;
	}
	return false;
}

static __always_inline bool is_steal(u32 item)
{
	switch (item) {
	case KERNEL_ENUM_PGSTEAL_KSWAPD:
	case KERNEL_ENUM_PGSTEAL_DIRECT:
#ifdef KERNEL_ENUM_PGSTEAL_KHUGEPAGED
	case KERNEL_ENUM_PGSTEAL_KHUGEPAGED:
#endif
#ifdef KERNEL_ENUM_PGSTEAL_PROACTIVE
	case KERNEL_ENUM_PGSTEAL_PROACTIVE:
#endif
		return true;
	}
	return false;
}

static __always_inline int count_reclaim(struct mem_cgroup *memcg, u32 item, u64 pages)
{
	bool scan = is_scan(item);

	if (!scan && !is_steal(item))
		return 0;

	struct attempt *attempt = current_attempt();

	if (attempt && !attempt->scanned_memcg)
		attempt->scanned_memcg = memcg;
	struct memcg_info *info = memcg_info(memcg);

	if (!info || !info->follow)
		return 0;

	u64 id = info->cgroup_id;
	struct reclaim_counts zero = {};
	struct reclaim_counts *counts = reclaim_counts.lookup_or_try_init(&id, &zero);

	if (counts)
		__sync_fetch_and_add(scan ? &counts->pgscan : &counts->pgsteal, pages);
	return 0;
}

#endif
