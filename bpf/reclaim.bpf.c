// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `reclaim`: reclaim attempts, from start to end, with the pages scanned and reclaimed
 * on each list. Between start and end the attempt is in `attempts`, by thread, where other programs
 * look up the attempt of the current task.
 */

#include "shared/attempts.h"
#include "shared/limits.h"
#include "shared/syscalls.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(reclaim_ring, SIZED_BY_LOADER);

/* A call by which the current thread reclaims from a given memcg. */
struct memcg_request {
	struct mem_cgroup *memcg;
	u32 options;
};

BPF_TABLE("lru_hash", u32, struct memcg_request, memcg_requests, 4096); /* by thread id */

/*
 * include/linux/swap.h, mm/internal.h: set for memory.reclaim since 73b73bac90d9 ("mm: vmpressure:
 * don't count proactive reclaim in vmpressure"), v6.0. Before, the argument was a bool, which never
 * has this bit.
 */
#define MEMCG_RECLAIM_PROACTIVE (1 << 2)

static __always_inline int enter_memcg_reclaim(struct call *call)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct memcg_request fresh = {.memcg = (struct mem_cgroup *)call->args[0],
				      .options = call->args[3]};

	memcg_requests.update(&pid, &fresh);
	return 0;
}

/*
 * The begin events have their arguments in the opposite order, followed by the target, since "mm:
 * vmscan: add cgroup IDs to vmscan tracepoints", v7.1.
 */
#ifdef HAS_trace_event_raw_mm_vmscan_direct_reclaim_begin_template_memcg_id
#define ARG_GFP 0
#define ARG_ORDER 1
#define NAMED_TARGET(ctx) ((struct mem_cgroup *)(ctx)->args[2])
#else
#define ARG_ORDER 0
#define ARG_GFP 1
#define NAMED_TARGET(ctx) NULL
#endif

static __always_inline bool is_pressed(struct mem_cgroup *memcg)
{
	return room_pages(memcg) <= NEAR_LIMIT_PAGES || is_above_high(memcg);
}

/*
 * Return whether an attempt was requested. On v2 the call has a flag for it; on v1 it has none
 * (memory.force_empty, and limits written below usage). On v1, and if the call was not seen, an
 * attempt counts as requested if no limit was in the way.
 */
static __always_inline bool is_proactive(struct mem_cgroup *target, struct memcg_request *request)
{
#ifndef CGROUP_V1
	if (request)
		return request->options & MEMCG_RECLAIM_PROACTIVE;
#endif
	return !is_pressed(target);
}

#define CGROUP_SUPER_MAGIC 0x27e0eb /* include/uapi/linux/magic.h */
#define CGROUP2_SUPER_MAGIC 0x63677270

/*
 * Return the memcg whose control file the current task is writing; NULL: it writes none. Reclaim
 * inside such a write has that memcg as its target: memory.reclaim, memory.max and memory.high, and
 * on v1 memory.force_empty and memory.limit_in_bytes.
 */
static __always_inline struct mem_cgroup *written_memcg(void)
{
	struct pt_regs *regs = entry_registers();
	struct inode *inode;
	u64 magic;

	if (syscall_activity(syscall_number(regs)) != DOES_WRITE)
		return NULL;
	inode = READ(file_of(syscall_argument(regs, 0)), f_inode);
	magic = READ(READ(inode, i_sb), s_magic);
	if (magic != CGROUP_SUPER_MAGIC && magic != CGROUP2_SUPER_MAGIC)
		return NULL;

	struct kernfs_node *file = (struct kernfs_node *)READ(inode, i_private);
	struct kernfs_node *folder = (struct kernfs_node *)READ(file, KERNFS_PARENT);

	return memcg_from_css(
		READ((struct cgroup *)READ(folder, priv), subsys[KERNEL_ENUM_memory_cgrp_id]));
}

/*
 * Set the target of an attempt: the one that the kernel names, or else the memcg whose file is
 * being written, or else the one that the page counters suggest.
 */
static __always_inline void aim(struct attempt *attempt, struct bpf_raw_tracepoint_args *ctx)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct memcg_request *request = memcg_requests.lookup(&pid);
	struct mem_cgroup *named = request ? request->memcg : NAMED_TARGET(ctx);
	struct mem_cgroup *written = written_memcg();

	if (!named)
		named = written;
	if (named) {
		attempt->target = named;
		attempt->is_written = named == written;
		attempt->record.target_source = TARGET_NAMED;
		attempt->record.kind =
			is_proactive(named, request) ? RECLAIM_PROACTIVE : RECLAIM_MEMCG;
	} else {
		struct limits limits = limits_above(charged_memcg(current_task()));
		struct owner owner = limit_owner(&limits);

		attempt->target = owner.memcg;
		attempt->record.target_source = owner.source;
	}
	if (request)
		memcg_requests.delete(&pid);
}

static __always_inline int begin(struct bpf_raw_tracepoint_args *ctx, u32 kind, s32 order, u32 gfp)
{
	u32 pid = bpf_get_current_pid_tgid();
	/*
	 * On the stack: since a46023d5616e (runs.h), the task can be preempted here, and the
	 * program of another begin event can run on this CPU meanwhile.
	 */
	struct attempt attempt = {
		.record = {.kind = kind, .order = order, .gfp = gfp, .pid = pid, .priority = -1},
	};

	if (kind == RECLAIM_MEMCG)
		aim(&attempt, ctx);
	attempt.record.time_ns = bpf_ktime_get_ns();
	attempt.record.cpu_ns = READ(current_task(), sum_exec_runtime);
	attempt.record.task_cgroup_id = memcg_id(task_memcg(current_task()));
	attempt.record.tgid = current_tgid();
	if (attempts.update(&pid, &attempt))
		count_lost(STREAM_RECLAIM);
	return 0;
}

static __always_inline void finish(struct attempt *attempt, u64 reclaimed)
{
	struct reclaim_event *record = &attempt->record;
	u64 now = bpf_ktime_get_ns();
	struct ended ended = {.time_ns = now, .gfp = record->gfp, .kind = record->kind};
	u32 pid = record->pid;

	if (record->target_source == TARGET_NAMED)
		ended.named = attempt->target;
	last_ended.update(&pid, &ended);
	if (!attempt->target &&
	    (record->kind == RECLAIM_MEMCG || record->kind == RECLAIM_SOFTLIMIT)) {
		attempt->target = attempt->scanned_memcg;
		record->target_source = attempt->target ? TARGET_SCANNED : TARGET_NONE;
		if (record->kind == RECLAIM_MEMCG)
			record->kind = RECLAIM_PROACTIVE; /* no limit was in the way */
	}
	/*
	 * No charge waits for memory.max or memory.high written below usage. `ended` keeps the
	 * kind: that write of memory.max can end in a kill.
	 */
	if (attempt->is_written)
		record->kind = RECLAIM_PROACTIVE;
	/* An attempt without a target reclaims from all cgroups. */
	if (attempt->target && !is_traced(attempt->target))
		return;
	record->duration_ns = now - record->time_ns;
	record->cpu_ns = READ(current_task(), sum_exec_runtime) - record->cpu_ns;
	record->reclaimed = reclaimed;
	if (attempt->target) {
		struct counter counter = read_counter(&attempt->target->memory);

		record->cgroup_id = memcg_id(attempt->target);
		record->usage_pages = counter.usage_pages;
		record->limit_pages = counter.limit_pages;
	}
	see_current(record->tgid);
	if (reclaim_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(STREAM_RECLAIM);
	wake_recorder();
}

PROGRAM(mm_vmscan_memcg_reclaim_begin)
{
	/* The order in the event is always 0, whatever the order of the charge. */
	return begin(ctx, RECLAIM_MEMCG, -1, ctx->args[ARG_GFP]);
}

PROGRAM(mm_vmscan_memcg_softlimit_reclaim_begin)
{
	return begin(ctx, RECLAIM_SOFTLIMIT, ctx->args[ARG_ORDER], ctx->args[ARG_GFP]);
}

PROGRAM(mm_vmscan_direct_reclaim_begin)
{
	return begin(ctx, RECLAIM_DIRECT, ctx->args[ARG_ORDER], ctx->args[ARG_GFP]);
}

PROGRAM(mm_vmscan_kswapd_wake)
{
	return begin(ctx, RECLAIM_KSWAPD, ctx->args[2], 0);
}

/* The end of an attempt of any kind. All end events but kswapd's have the pages reclaimed. */
PROGRAM(reclaim_end)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct attempt *attempt = attempts.lookup(&pid);

	if (!attempt)
		return 0;
	finish(attempt, attempt->record.kind == RECLAIM_KSWAPD
				? attempt->record.reclaimed_anon + attempt->record.reclaimed_file
				: ctx->args[0]);
	attempts.delete(&pid);
	return 0;
}

#define ADD_LIST(record, list, ctx, stat)                                            \
	({                                                                           \
		(record)->scanned_##list += (ctx)->args[1];                          \
		(record)->reclaimed_##list += (ctx)->args[2];                        \
		(record)->nr_dirty_##list += READ(stat, nr_dirty);                   \
		(record)->nr_unqueued_dirty_##list += READ(stat, nr_unqueued_dirty); \
		(record)->nr_writeback_##list += READ(stat, nr_writeback);           \
		(record)->nr_immediate_##list += READ(stat, nr_immediate);           \
		(record)->nr_activate_##list +=                                      \
			READ(stat, nr_activate[0]) + READ(stat, nr_activate[1]);     \
		(record)->nr_ref_keep_##list += READ(stat, nr_ref_keep);             \
		(record)->nr_unmap_fail_##list += READ(stat, nr_unmap_fail);         \
	})

PROGRAM(mm_vmscan_lru_shrink_inactive)
{
	struct attempt *attempt = current_attempt();
	struct reclaim_stat *stat = (struct reclaim_stat *)ctx->args[3];
	s8 priority = ctx->args[4];

	if (!attempt)
		return 0;

	struct reclaim_event *record = &attempt->record;

	if (ctx->args[5])
		ADD_LIST(record, file, ctx, stat);
	else
		ADD_LIST(record, anon, ctx, stat);
	if (record->priority < 0 || priority < record->priority)
		record->priority = priority;
	return 0;
}

/*
 * Swap backs the folios on the lists of anonymous memory (folio_is_file_lru in
 * include/linux/mm_inline.h).
 */
PROGRAM(mm_vmscan_write_folio)
{
	struct attempt *attempt = current_attempt();
	struct folio *folio = (struct folio *)ctx->args[0];

	if (!attempt)
		return 0;
	if (!attempt->scanned_memcg)
		attempt->scanned_memcg = folio_memcg(READ(folio, memcg_data));
	if (READ(folio, flags) & (1UL << KERNEL_ENUM_PG_swapbacked))
		attempt->record.written_anon += folio_nr_pages(folio);
	else
		attempt->record.written_file += folio_nr_pages(folio);
	return 0;
}

/* A shrinker is called with its memcg, which is the target of an attempt without a known target. */
PROGRAM(mm_shrink_slab_start)
{
	struct attempt *attempt = current_attempt();

	if (attempt && !attempt->scanned_memcg)
		attempt->scanned_memcg = READ((struct shrink_control *)ctx->args[1], memcg);
	return 0;
}

PROGRAM(mm_shrink_slab_end)
{
	struct attempt *attempt = current_attempt();

	if (!attempt)
		return 0;
	attempt->record.slab_scanned += ctx->args[5];
	attempt->record.slab_reclaimed += (u32)ctx->args[2];
	return 0;
}
