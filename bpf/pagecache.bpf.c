// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `pagecache`: every folio that enters or leaves the page cache, with its owner, the
 * acting task, the file, and the cause, in runs (shared/runs.h). The cause is decided for each
 * folio.
 */

#include "shared/causes.h"
#include "shared/inodes.h"
#include "shared/runs.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

/* Return whether to record an event on a folio of this owner. The last owner needs no look-up. */
static __always_inline bool take_owner(struct page_runs *runs, struct mem_cgroup *owner)
{
	u32 generation = this_generation();

	if (owner && runs->owner == owner && runs->generation == generation)
		return runs->is_wanted;

	struct memcg_info info = memcg_info(owner);

	runs->owner = owner;
	runs->owner_id = info.cgroup_id;
	runs->generation = generation;
	runs->is_wanted = is_wanted_owner(info);
	runs->follow = info.follow;
	return runs->is_wanted;
}

static __always_inline bool continues(struct run *run, struct page_runs *runs, struct event *event)
{
	struct pagecache_event *record = &run->record;

	if (!record->folios || run->mapping != event->mapping || record->ino != event->ino ||
	    record->dev != event->dev || run->i_generation != event->i_generation ||
	    record->cgroup_id != runs->owner_id || record->tgid != event->tgid ||
	    record->cause != event->cause || run->actor != event->actor ||
	    run->generation != runs->generation ||
	    event->ticks - run->first_ticks >= TRACER_COMBINE_TICKS)
		return false;
	if (run->next == event->index)
		return true;
	if (is_summing())
		record->index = NO_INDEX;
	return record->index == NO_INDEX;
}

static __always_inline void begin_run(struct run *run, struct page_runs *runs, struct event *event,
				      u32 op, u64 now_ns)
{
	struct pagecache_event *record = &run->record;
	u32 tgid = event->tgid;
	u64 volume = volume_of(event->inode, event->dev, event->i_generation);
	u64 inode_id = inode_identity(event->dev, volume, event->ino, event->i_generation);

	record->time_ns = now_ns;
	record->cgroup_id = runs->owner_id;
	record->task_cgroup_id = LOAD(LOAD(LOAD(event->actor, cgroup), kn), id);
	record->inode_id = inode_id;
	record->ino = event->ino;
	record->index = event->index;
	record->dev = event->dev;
	record->tgid = tgid;
	record->folios = 0;
	record->nr_pages = 0;
	record->op = op;
	record->cause = event->cause;
	run->mapping = event->mapping;
	run->actor = event->actor;
	run->i_generation = event->i_generation;
	run->generation = runs->generation;
	run->first_ticks = event->ticks;
	see_current(tgid);

	struct memcg_info user = {
		.memcg = runs->owner,
		.cgroup_id = runs->owner_id,
		.follow = runs->follow,
	};

	see_inode(event->inode, inode_id, &user, tgid);
	wake_recorder();
}

/*
 * Add a folio to the run under way, or begin another run with it.
 *
 * A folio also ends the opposite run on its file, unless it lies before all folios of that run. So
 * a page that is added and deleted by one CPU is in runs that began in the same order.
 */
static __always_inline void add_to_run(struct page_runs *runs, struct event *event, u32 op)
{
	struct run *run = &runs->runs[op];
	struct run *opposite = &runs->runs[!op];
	bool crosses = opposite->record.folios && opposite->mapping == event->mapping &&
		       event->index + event->nr_pages > opposite->record.index;
	bool is_next = continues(run, runs, event);

	if (crosses || !is_next) {
		u64 now_ns = bpf_ktime_get_ns();

		if (crosses)
			CALL(end_run, runs->number << 1 | !op, now_ns);
		if (!is_next) {
			CALL(end_run, runs->number << 1 | op, now_ns);
			begin_run(run, runs, event, op, now_ns);
		}
	}
	run->next = event->index + event->nr_pages;
	run->call = event->call;
	run->pid = event->pid;
	run->record.duration_ns = (event->ticks - run->first_ticks) * TRACER_TICK_NS;
	run->record.folios++;
	run->record.nr_pages += event->nr_pages;
}

static __always_inline void take_folio(struct page_runs *runs, struct folio *folio, u32 op)
{
	struct task_struct *task = current_task();
	struct event event = {
		.mapping = LOAD(folio, mapping),
		.index = LOAD(folio, index),
		.nr_pages = folio_nr_pages(folio),
		.tgid = LOAD(task, tgid),
		.pid = LOAD(task, pid),
		.actor = memory_css(task),
		.ticks = bpf_jiffies64(),
	};

	event.inode = LOAD(event.mapping, host);
	event.ino = LOAD(event.inode, i_ino);
	event.dev = LOAD(LOAD(event.inode, i_sb), s_dev);
	event.i_generation = LOAD(event.inode, i_generation);
#ifdef HUGETLB_INDEX_IS_OF_HUGE_PAGES
	if (event.nr_pages > 1 && is_of_hugetlbfs(&event))
		event.index *= event.nr_pages;
#endif
	event.cause = op == OP_ADD ? add_cause(&event) : delete_cause(&event);
	add_to_run(runs, &event, op);
}

static __always_inline int emit_pagecache(struct folio *folio, u32 op)
{
	u32 zero = 0;
	struct mem_cgroup *owner = folio_memcg(LOAD(folio, memcg_data));
	struct cpu_runs *cpu = page_runs.lookup(&zero);
	struct page_runs *runs = cpu ? &cpu->sets[0] : NULL;

	if (!runs)
		return 0;
	if (are_busy(runs)) {
		runs = &cpu->sets[1];
		runs->number = 1;
	}
	if (are_busy(runs)) {
		count_lost(STREAM_PAGECACHE);
		return 0;
	}

	volatile u32 *busy = &runs->busy;

	*busy = 1;
	if (take_owner(runs, owner))
		take_folio(runs, folio, op);
	*busy = 0;
	return 0;
}

PROGRAM(mm_filemap_add_to_page_cache)
{
	return emit_pagecache(UNTRUSTED(folio, ctx->args[0]), OP_ADD);
}

PROGRAM(mm_filemap_delete_from_page_cache)
{
	return emit_pagecache(UNTRUSTED(folio, ctx->args[0]), OP_DELETE);
}

static __always_inline int note_fault(struct address_space *mapping)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct fault fault = {.mapping = mapping};

	if (!is_traced(task_memcg(current_task())))
		return 0;

	struct pt_regs *regs = entry_registers();

	fault.call = syscall_number(regs);
	fault.ip = user_ip(regs);
	faults.update(&pid, &fault);
	return 0;
}

PROGRAM(mm_filemap_fault)
{
	return note_fault((struct address_space *)ctx->args[0]);
}

/*
 * A tracepoint exists since "filemap: add trace events for get_pages, map_pages, and fault", v6.12.
 */
static __always_inline int enter_filemap_fault(struct call *call)
{
	struct vm_fault *fault = (struct vm_fault *)call->args[0];
	struct vm_area_struct *area = READ(fault, vma);

	return note_fault(READ(READ(area, vm_file), f_mapping));
}
