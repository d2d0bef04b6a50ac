// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Every folio that enters or leaves the page cache: whose it is, who acts, which file, and why. The cause is read off
 * what the acting task is inside of: a reclaim attempt (reclaim.bpf.c), a page fault, a system call.
 */

#define PAGECACHE_WAKE_BYTES (PAGECACHE_RING_PAGES * PAGE_SIZE / 2)

BPF_RINGBUF_OUTPUT(pagecache_ring, PAGECACHE_RING_PAGES);

/*
 * The last fault on a file that a thread took. It has no end event; but registers saved at entry to the kernel differ
 * between a fault and what the thread does next, so a folio added under the same (call, instruction) belongs to it.
 */
struct fault {
	s64 call;
	u64 ip;
	struct address_space *mapping;
};

BPF_TABLE("lru_hash", u32, struct fault, faults, 8192); /* by thread id */

static __always_inline bool in_fault(u32 pid, s64 call, u64 ip, struct address_space *mapping)
{
	struct fault *fault = faults.lookup(&pid);

	return fault && fault->call == call && fault->ip == ip && fault->mapping == mapping;
}

static __always_inline u8 reclaim_cause(u32 pid)
{
	struct attempt *attempt = attempts.lookup(&pid);

	if (READ(current_task(), flags) & PF_KSWAPD)
		return CAUSE_RECLAIM_KSWAPD;
	if (!attempt)
		return CAUSE_OTHER;
	return attempt->record.kind == RECLAIM_DIRECT ? CAUSE_RECLAIM_DIRECT : CAUSE_RECLAIM_MEMCG;
}

static __always_inline u8 add_cause(struct calibration *known, u32 pid, struct address_space *mapping)
{
	u64 ip;
	s64 call = current_syscall(known, &ip);

	if (in_fault(pid, call, ip, mapping))
		return CAUSE_FAULT;
	switch (syscall_activity(call)) {
	case DOES_READ:
		return CAUSE_READ;
	case DOES_WRITE:
		return CAUSE_WRITE;
	case DOES_READAHEAD:
	case DOES_ADVISE:
		return CAUSE_READAHEAD;
	}
	return CAUSE_OTHER;
}

static __always_inline u8 delete_cause(struct calibration *known, u32 pid, struct address_space *mapping)
{
	u64 ip;
	u8 cause = reclaim_cause(pid);

	if (cause != CAUSE_OTHER)
		return cause;
	/* truncate_inode_pages_final(): the inode is on its way out */
	if (READ(mapping, flags) & (1UL << KERNEL_ENUM_AS_EXITING))
		return CAUSE_TRUNCATE;
	switch (syscall_activity(current_syscall(known, &ip))) {
	case DOES_REMOVE:
		return CAUSE_TRUNCATE;
	case DOES_ADVISE:
		return CAUSE_INVALIDATE;
	}
	return CAUSE_OTHER;
}

static __always_inline void describe(struct pagecache_event *record, struct folio *folio,
				     struct mem_cgroup *owner, u64 owner_id)
{
	struct task_struct *task = current_task();
	struct address_space *mapping = READ(folio, mapping);
	struct inode *inode = READ(mapping, host);
	struct mem_cgroup *actor = task_memcg(task);

	record->cgroup_id = owner_id;
	record->task_cgroup_id = actor == owner ? owner_id : memcg_id(actor);
	record->ino = READ(inode, i_ino);
	record->dev = READ(READ(inode, i_sb), s_dev);
	record->inode_id = inode_identity(record->dev, record->ino, READ(inode, i_generation));
	record->index = READ(folio, index);
	record->nr_pages = folio_nr_pages(folio);
}

/* Without a filter, a folio that nobody owns is wanted too. */
static __always_inline bool is_wanted_owner(struct memcg_info *info)
{
#ifdef TRACE_ALL
	return true;
#else
	return info && info->traced;
#endif
}

static __always_inline int emit_pagecache(struct folio *folio, u32 op)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct mem_cgroup *owner = folio_memcg(folio);
	struct memcg_info *info = memcg_info(owner);
	struct calibration *known = calibrated();

	if (!known || !is_wanted_owner(info))
		return 0;

	struct address_space *mapping = READ(folio, mapping);
	struct inode *inode = READ(mapping, host);
	struct pagecache_event *record = pagecache_ring.ringbuf_reserve(sizeof(*record));

	if (!record) {
		count_lost(STREAM_PAGECACHE);
		return 0;
	}
	record->time_ns = bpf_ktime_get_ns();
	describe(record, folio, owner, info ? info->cgroup_id : 0);
	record->tgid = current_tgid();
	record->op = op;
	record->cause = op == OP_ADD ? add_cause(known, pid, mapping) : delete_cause(known, pid, mapping);
	record->pad[0] = record->pad[1] = 0;

	u64 inode_id = record->inode_id;
	u32 tgid = record->tgid;
	u64 waiting = pagecache_ring.ringbuf_query(BPF_RB_AVAIL_DATA);

	pagecache_ring.ringbuf_submit(record, waiting > PAGECACHE_WAKE_BYTES ? BPF_RB_FORCE_WAKEUP
									     : BPF_RB_NO_WAKEUP);
	see_current(tgid);
	see_inode(inode, inode_id);
	return 0;
}

PROGRAM(mm_filemap_add_to_page_cache)
{
	return emit_pagecache((struct folio *)ctx->args[0], OP_ADD);
}

PROGRAM(mm_filemap_delete_from_page_cache)
{
	return emit_pagecache((struct folio *)ctx->args[0], OP_DELETE);
}

static __always_inline int note_fault(struct address_space *mapping)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct calibration *known = calibrated();
	struct fault fault = {.mapping = mapping};

	if (!known || !is_traced(task_memcg(current_task())))
		return 0;
	fault.call = current_syscall(known, &fault.ip);
	faults.update(&pid, &fault);
	return 0;
}

PROGRAM(mm_filemap_fault)
{
	return note_fault((struct address_space *)ctx->args[0]);
}

/* The tracepoint came with "filemap: add trace events for get_pages, map_pages, and fault" (6.12). */
static __always_inline int enter_filemap_fault(struct call *call)
{
	struct vm_area_struct *area = READ((struct vm_fault *)call->args[0], vma);

	return note_fault(READ(READ(area, vm_file), f_mapping));
}
