/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Sums of runs of the page cache, by owner, process, file, operation and cause. Runs are summed
 * instead of being sent while `summing` says so: a program sets it when the ring is full, and user
 * space when tracing costs too much. User space also ends it, when there is room again. Totals stay
 * exact; the indices of the pages are lost.
 *
 * User space reads the sums without stopping the programs. Each sum belongs to an epoch. User space
 * begins another epoch, waits until no program can be adding to the old one, and then takes the
 * sums of the old one out of the map.
 */
#ifndef MEMCG_TRACER_PAGE_SUMS_H
#define MEMCG_TRACER_PAGE_SUMS_H

#include "tracked.h"

#define NO_INDEX (~0ULL) /* of a record that is a sum */

#define PAGE_SUMS 8192
/* From here on, new sums are over all processes and files of a device: few, so that they fit. */
#define PAGE_SUMS_OF_FILES (PAGE_SUMS / 2)

struct page_sum_key {
	u64 cgroup_id;
	u64 task_cgroup_id;
	u64 inode_id; /* 0 = a sum over processes and files */
	u64 ino;
	u32 dev;
	u32 tgid;
	u32 epoch;
	u8 op;
	u8 cause;
	u8 pad[2];
};

struct page_sum {
	u64 first_ns; /* when the first and the last folio came */
	u64 last_ns;
	u64 folios;
	u64 nr_pages;
};

BPF_HASH(page_sums, struct page_sum_key, struct page_sum, PAGE_SUMS);

enum summing_item {
	SUMMING_REASON, /* enum summed_reason */
	SUMMING_EPOCH,
	SUMMING_COUNT, /* sums of even epochs, then of odd ones */
	SUMMING_ITEMS = SUMMING_COUNT + 2,
};

BPF_ARRAY(summing, u64, SUMMING_ITEMS);

static __always_inline u64 summing_item(u32 item)
{
	u64 *value = summing.lookup(&item);

	return value ? *value : 0;
}

static __always_inline bool is_summing(void)
{
	return summing_item(SUMMING_REASON) != SUMMED_NOTHING;
}

static __always_inline void begin_summing(void)
{
	u32 item = SUMMING_REASON;
	u64 *reason = summing.lookup(&item);

	if (reason && *reason == SUMMED_NOTHING)
		*reason = SUMMED_RING_FULL;
}

static __always_inline struct page_sum *new_page_sum(struct page_sum_key *key, u64 *count,
						     u64 first_ns)
{
	struct page_sum nothing = {.first_ns = first_ns};

	if (!page_sums.insert(key, &nothing))
		__sync_fetch_and_add(count, 1);
	return page_sums.lookup(key);
}

static __always_inline struct page_sum *page_sum_of(struct pagecache_event *record)
{
	u64 epoch = summing_item(SUMMING_EPOCH);
	u32 item = SUMMING_COUNT + (epoch & 1);
	u64 *count = summing.lookup(&item);
	struct page_sum_key key = {
		.cgroup_id = record->cgroup_id,
		.task_cgroup_id = record->task_cgroup_id,
		.inode_id = record->inode_id,
		.ino = record->ino,
		.dev = record->dev,
		.tgid = record->tgid,
		.epoch = epoch,
		.op = record->op,
		.cause = record->cause,
	};
	struct page_sum *sum = page_sums.lookup(&key);

	if (sum || !count)
		return sum;
	if (*count < PAGE_SUMS_OF_FILES)
		return new_page_sum(&key, count, record->time_ns);
	key.inode_id = 0;
	key.ino = 0;
	key.tgid = 0;
	sum = page_sums.lookup(&key);
	return sum ? sum : new_page_sum(&key, count, record->time_ns);
}

/* Add a run to its sum. If there is no room for any sum, its folios are lost, and counted. */
static __always_inline void sum_run(struct pagecache_event *record, u64 now_ns)
{
	struct page_sum *sum = page_sum_of(record);
	u64 last_ns = record->time_ns + record->duration_ns;

	if (!sum) {
		count_lost_records(STREAM_PAGECACHE, record->folios);
		return;
	}
	if (record->time_ns < sum->first_ns)
		sum->first_ns = record->time_ns;
	if (last_ns > now_ns)
		last_ns = now_ns;
	if (last_ns > sum->last_ns)
		sum->last_ns = last_ns;
	__sync_fetch_and_add(&sum->folios, record->folios);
	__sync_fetch_and_add(&sum->nr_pages, record->nr_pages);
}

#endif
