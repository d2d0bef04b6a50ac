// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `swap_io`: writes to swap and reads from swap, from when a bio is queued to when the
 * device has completed it. A bio of a device that takes requests ends with its request
 * (blk_update_request, blk_complete_request in block/blk-mq.c); any other ends with its own event
 * (bio_endio in block/bio.c). Stacked devices make clones of a bio, which are not counted again.
 */

#include "shared/tasks.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(swap_io_ring, SIZED_BY_LOADER);

BPF_HASH(swap_ios, struct bio *, struct swap_io_event, 16384); /* under way */
BPF_ARRAY(swap_ios_under_way, s64, 1); /* how many */

#define REQ_OP_MASK 0xff /* include/linux/blk_types.h */
#define REQUEST_BIOS 256 /* at most, of one request */

static __always_inline struct folio *first_folio(struct bio *bio)
{
	struct bio_vec *first = READ(bio, bi_io_vec);

	return (struct folio *)READ(first, bv_page);
}

/*
 * mm/page_io.c marks writes (REQ_SWAP) but not reads. A swap read fills memory that swap backs and
 * that has no contents yet. A read into the buffer of a process (O_DIRECT) goes to memory with
 * contents.
 */
static __always_inline bool is_swap_read(struct bio *bio)
{
	u64 flags = READ(first_folio(bio), flags);

	return flags & (1UL << KERNEL_ENUM_PG_swapbacked) &&
	       !(flags & (1UL << KERNEL_ENUM_PG_uptodate));
}

static __always_inline bool is_swap_io(struct bio *bio, u32 flags)
{
	switch (flags & REQ_OP_MASK) {
	case KERNEL_ENUM_REQ_OP_WRITE:
		return flags & (1U << KERNEL_ENUM___REQ_SWAP);
	case KERNEL_ENUM_REQ_OP_READ:
		return is_swap_read(bio);
	default:
		return false;
	}
}

static __always_inline s64 *under_way(void)
{
	u32 zero = 0;

	return swap_ios_under_way.lookup(&zero);
}

/* End a bio, now if its end was seen. Return the number of lost records. */
static __always_inline u64 end_swap_io(struct bio *bio, bool is_seen, u64 now, s64 *count)
{
	struct swap_io_event *record = swap_ios.lookup(&bio);

	if (!record)
		return 0;
	record->duration_ns = is_seen ? now - record->time_ns : 0;

	s64 result = swap_io_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP);

	swap_ios.delete(&bio);
	__sync_fetch_and_add(count, -1);
	return (u64)result >> 63;
}

/*
 * Later kernels gather pages for one write (struct swap_iocb in mm/swap.h, seen on 7.3). These
 * pages come from one LRU list, so from one cgroup, unless they are reclaimed by address
 * (reclaim_pages in mm/vmscan.c). Pages are charged before they are read
 * (mem_cgroup_swapin_charge_folio in mm/memcontrol.c).
 */
static __always_inline void begin_swap_io(struct bio *bio, u32 flags, s64 *count)
{
	struct folio *folio = first_folio(bio);
	struct memcg_info info = memcg_info(folio_memcg(READ(folio, memcg_data)));

	if (!is_wanted_owner(info))
		return;

	struct swap_io_event record = {
		.time_ns = bpf_ktime_get_ns(),
		.cgroup_id = info.cgroup_id,
		.task_cgroup_id = memcg_id(task_memcg(current_task())),
		.tgid = current_tgid(),
		.pid = bpf_get_current_pid_tgid(),
		.nr_pages = READ(bio, bi_size) / PAGE_SIZE,
		.op = (flags & REQ_OP_MASK) == KERNEL_ENUM_REQ_OP_WRITE ? SWAP_IO_WRITE
									: SWAP_IO_READ,
	};

	if (swap_ios.update(&bio, &record))
		count_lost(STREAM_SWAP_IO);
	else
		__sync_fetch_and_add(count, 1);
	see_current(record.tgid);
}

PROGRAM(block_bio_queue)
{
	struct bio *bio = (struct bio *)ctx->args[0];
	u32 flags = READ(bio, bi_opf);

	if (!is_swap_io(bio, flags) || READ(bio, bi_flags) & (1U << KERNEL_ENUM_BIO_CLONED))
		return 0;

	s64 *count = under_way();

	if (!count)
		return 0;
	count_lost_records(STREAM_SWAP_IO, end_swap_io(bio, false, 0, count));
	begin_swap_io(bio, flags, count);
	return 0;
}

PROGRAM(block_bio_complete)
{
	s64 *count = under_way();

	if (!count || *count <= 0)
		return 0;
	count_lost_records(STREAM_SWAP_IO, end_swap_io((struct bio *)ctx->args[1], true,
						       bpf_ktime_get_ns(), count));
	wake_recorder();
	return 0;
}

/* The bios of a request that has completed. */
struct completion {
	struct bio *at; /* the next to be ended */
	u64 now;
	u64 lost_records;
};

SUBPROGRAM(end_next_bio)
{
	struct completion *done = (struct completion *)SECOND_ARGUMENT;
	s64 *count = under_way();

	if (!done->at || !count)
		return 1;
	done->lost_records += end_swap_io(done->at, true, done->now, count);
	done->at = READ(done->at, bi_next);
	return 0;
}

/*
 * A request has only the flags of its first bio, which may belong to another file next to the swap
 * file. So each bio is looked up. If a request completes in parts, which is rare, only the last
 * part is examined.
 */
PROGRAM(block_rq_complete)
{
	struct request *request = (struct request *)ctx->args[0];
	s64 *count = under_way();

	if (!count || *count <= 0 || (u32)ctx->args[2] < READ(request, __data_len))
		return 0;

	struct completion done = {.at = READ(request, bio), .now = bpf_ktime_get_ns()};

	LOOP(end_next_bio, REQUEST_BIOS, &done);
	count_lost_records(STREAM_SWAP_IO, done.lost_records);
	wake_recorder();
	return 0;
}
