// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `stall`: waits of tasks for memory. Some tracepoints report a wait when it is over,
 * others before it begins; the rest are function calls, measured from entry to exit.
 */

#include "shared/attempts.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(stall_ring, SIZED_BY_LOADER);

static __always_inline int emit_stall(u64 begin_ns, u64 duration_ns, u8 kind)
{
	struct mem_cgroup *memcg = task_memcg(current_task());
	struct memcg_info info = memcg_info(memcg);

	if (!duration_ns || !info.follow)
		return 0;

	struct stall_event *record =
		or_count_lost(stall_ring.ringbuf_reserve(sizeof(*record)), STREAM_STALL);

	if (!record)
		return 0;
	CLEAR(record);
	record->time_ns = begin_ns;
	record->duration_ns = duration_ns;
	record->cgroup_id = info.cgroup_id;
	record->tgid = current_tgid();
	record->pid = bpf_get_current_pid_tgid();
	record->kind = kind;

	u32 tgid = record->tgid;

	stall_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	wake_recorder();
	see_current(tgid);
	return 0;
}

static __always_inline u8 throttle_kind(u32 reason)
{
	switch (reason) {
	case KERNEL_ENUM_VMSCAN_THROTTLE_WRITEBACK:
		return STALL_WRITEBACK;
	case KERNEL_ENUM_VMSCAN_THROTTLE_ISOLATED:
		return STALL_ISOLATED;
	case KERNEL_ENUM_VMSCAN_THROTTLE_NOPROGRESS:
		return STALL_NOPROGRESS;
	case KERNEL_ENUM_VMSCAN_THROTTLE_CONGESTED:
		return STALL_CONGESTED;
	}
	return STALL_OTHER;
}

/* reclaim_throttle() in mm/vmscan.c: the event fires at the end of the wait. */
PROGRAM(mm_vmscan_throttled)
{
	struct attempt *attempt = current_attempt();

	u64 duration_ns = (u64)(u32)ctx->args[2] * 1000;

	if (attempt)
		attempt->record.throttles++;
	return emit_stall(bpf_ktime_get_ns() - duration_ns, duration_ns,
			  throttle_kind(ctx->args[3]));
}

/*
 * A writer is about to sleep for `pause` timer ticks. Later kernels pass the arguments before
 * `pause` in one structure (seen on 6.18); `pause` is the second to last in both forms.
 */
PROGRAM(balance_dirty_pages)
{
	s64 pause = ctx->args[KERNEL_PAUSE_ARGUMENT];

	return pause > 0 ? emit_stall(bpf_ktime_get_ns(), pause * TRACER_TICK_NS, STALL_DIRTY) : 0;
}

/* (thread id, kind) -> when the wait began. Waits of different kinds may nest. */
BPF_TABLE("lru_hash", u64, u64, waits, 8192);

static __always_inline u64 wait_key(u8 kind)
{
	return (u64)(u32)bpf_get_current_pid_tgid() << 8 | kind;
}

static __always_inline int enter_wait(u8 kind)
{
	u64 key = wait_key(kind);
	u64 now = bpf_ktime_get_ns();

	if (is_traced(task_memcg(current_task())))
		waits.update(&key, &now);
	return 0;
}

static __always_inline int leave_wait(u8 kind)
{
	u64 key = wait_key(kind);
	u64 *begin = waits.lookup(&key);

	if (!begin)
		return 0;

	u64 begin_ns = *begin;

	waits.delete(&key);
	return emit_stall(begin_ns, bpf_ktime_get_ns() - begin_ns, kind);
}

static __always_inline int enter_swap_in(struct call *call)
{
	return enter_wait(STALL_SWAP_IN);
}

static __always_inline int leave_swap_in(struct call *call)
{
	return leave_wait(STALL_SWAP_IN);
}

/* The function runs at many returns to user space, and mostly has nothing to do. */
static __always_inline int enter_over_high(struct call *call)
{
	return READ(current_task(), memcg_nr_pages_over_high) ? enter_wait(STALL_HIGH) : 0;
}

static __always_inline int leave_over_high(struct call *call)
{
	return leave_wait(STALL_HIGH);
}
