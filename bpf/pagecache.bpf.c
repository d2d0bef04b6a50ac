// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `pagecache`: every folio that enters or leaves the page cache, with its owner, the
 * acting task, the file, and the cause. The cause is derived from the operation that the acting
 * task is inside of: a reclaim attempt (shared/attempts.h), a page fault, or a system call.
 */

#include "shared/attempts.h"
#include "shared/inodes.h"
#include "shared/syscalls.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

#define PAGECACHE_WAKE_BYTES (PAGECACHE_RING_PAGES * PAGE_SIZE / 2)
/* Records of a CPU between two readings of the ring's fill level: a reading is expensive. */
#define PAGECACHE_WAKE_EVERY 16

BPF_RINGBUF_OUTPUT(pagecache_ring, PAGECACHE_RING_PAGES);
BPF_PERCPU_ARRAY(pagecache_sent, u32, 1); /* how many records */

/*
 * The last page fault of a thread on a file. The fault has no end event. But the registers saved at
 * kernel entry differ between the fault and what the thread does next, so a folio added under the
 * same (call, instruction) belongs to the fault.
 */
struct fault {
	s64 call;
	u64 ip;
	u64 index;
	struct address_space *mapping;
};

BPF_TABLE("lru_hash", u32, struct fault, faults, 8192); /* by thread id */

/* A folio, and its file. */
struct cached {
	struct address_space *mapping;
	struct inode *inode;
	u64 index;
	u32 nr_pages;
};

static __always_inline bool holds(struct cached *cached, u64 index)
{
	return index >= cached->index && index < cached->index + cached->nr_pages;
}

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFBLK 0060000

static __always_inline bool is_of_type(struct inode *inode, u32 type)
{
	return (READ(inode, i_mode) & S_IFMT) == type;
}

/*
 * Return whether a folio holds some of the requested range; otherwise it was read ahead. The
 * metadata of a file is in the cache of the block device, and always needed. The cache of a file in
 * a stacked file system is in another inode, at the same index.
 */
static __always_inline bool is_asked_for(struct cached *cached, struct pt_regs *regs, s64 call)
{
	struct reading reading = reading_arguments(call);
	struct file *file = file_of(syscall_argument(regs, reading.file));
	u64 begin = READ(file, f_pos);
	u64 count = syscall_argument(regs, reading.count);
	u64 position;

	if (!is_of_type(cached->inode, S_IFREG))
		return true;
	if (reading.position != NO_ARGUMENT) {
		position = syscall_argument(regs, reading.position);
		if (!reading.position_is_pointer)
			begin = position;
		else if (position)
			bpf_probe_read_user(&begin, sizeof(begin), (void *)position);
	}
	return begin < (cached->index + cached->nr_pages) * PAGE_SIZE &&
	       begin + count > cached->index * PAGE_SIZE;
}

#define HUGETLBFS_MAGIC 0x958458f6 /* include/uapi/linux/magic.h */

static __always_inline bool is_of_hugetlbfs(struct cached *cached)
{
	return READ(READ(cached->inode, i_sb), s_magic) == HUGETLBFS_MAGIC;
}

static __always_inline u8 add_cause(struct cached *cached, struct calibration *known)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct pt_regs *regs = entry_registers(known);
	s64 call = syscall_number(regs);
	struct fault *fault = faults.lookup(&pid);

	if (fault && fault->call == call && fault->ip == user_ip(regs) &&
	    fault->mapping == cached->mapping)
		return holds(cached, fault->index) ? CAUSE_FAULT : CAUSE_READAHEAD;
	switch (syscall_activity(call)) {
	case DOES_READ:
		return is_asked_for(cached, regs, call) ? CAUSE_READ : CAUSE_READAHEAD;
	case DOES_READ_SOMEHOW:
		return CAUSE_READ;
	case DOES_WRITE:
	case DOES_ALLOCATE:
		return CAUSE_WRITE;
	case DOES_READAHEAD:
	case DOES_ADVISE:
	case DOES_ADVISE_MEMORY:
		return CAUSE_READAHEAD;
	}
	/*
	 * A fault on a huge page does not reach mm_filemap_fault. Outside of system calls, nothing
	 * else adds huge pages.
	 */
	if (regs && call < 0 && is_of_hugetlbfs(cached))
		return CAUSE_FAULT;
	return CAUSE_OTHER;
}

/*
 * Return the cause of an eviction; CAUSE_OTHER if the task does not reclaim. A task that reclaims
 * has PF_MEMALLOC, which keeps its allocations from reclaiming in turn, and is inside an attempt. A
 * kernel thread outside of any attempt is DAMON's, which takes idle pages (reclaim_pages in
 * mm/vmscan.c).
 */
static __always_inline u8 reclaim_cause(void)
{
	u32 flags = READ(current_task(), flags);

	if (flags & PF_KSWAPD)
		return CAUSE_RECLAIM_KSWAPD;
	if (!(flags & PF_MEMALLOC))
		return CAUSE_OTHER;

	struct attempt *attempt = current_attempt();

	if (!attempt)
		return flags & PF_KTHREAD ? CAUSE_RECLAIM_KSWAPD : CAUSE_OTHER;
	return attempt->record.kind == RECLAIM_DIRECT ? CAUSE_RECLAIM_DIRECT : CAUSE_RECLAIM_MEMCG;
}

/* include/uapi/asm-generic/fcntl.h, arch/arm64/include/uapi/asm/fcntl.h */
#if defined(TRACER_ARM64)
#define O_DIRECT 0200000
#else
#define O_DIRECT 0040000
#endif

static __always_inline bool is_drop_caches(struct file *file)
{
	const char wanted[] = "drop_caches";
	char name[sizeof(wanted)] = {};
	struct dentry *dentry = READ(file, dentry);
	struct inode *inode = READ(file, f_inode);

	if (READ(READ(inode, i_sb), s_magic) != PROC_SUPER_MAGIC)
		return false;
	bpf_probe_read_kernel(name, sizeof(name), READ(dentry, d_name.name));
#pragma unroll
	for (u32 at = 0; at < sizeof(wanted); at++) {
		if (name[at] != wanted[at])
			return false;
	}
	return true;
}

/*
 * A write to vm.drop_caches empties the cache; a write that bypasses the cache (O_DIRECT) drops its
 * range.
 */
static __always_inline u8 write_cause(struct pt_regs *regs)
{
	struct file *file = file_of(syscall_argument(regs, 0));

	if (is_drop_caches(file))
		return CAUSE_DROP_CACHES;
	return READ(file, f_flags) & O_DIRECT ? CAUSE_INVALIDATE : CAUSE_OTHER;
}

static __always_inline u8 call_cause(struct cached *cached, struct pt_regs *regs)
{
	switch (syscall_activity(syscall_number(regs))) {
	case DOES_WRITE:
		return write_cause(regs);
	case DOES_REMOVE:
	case DOES_ALLOCATE: /* punches a hole, or removes a range */
		return CAUSE_TRUNCATE;
	case DOES_ADVISE:
		return CAUSE_INVALIDATE;
	case DOES_ADVISE_MEMORY:
		return syscall_argument(regs, MADVISE_ADVICE) == MADV_REMOVE ? CAUSE_TRUNCATE
									     : CAUSE_INVALIDATE;
	case DOES_CONTROL: /* BLKFLSBUF, or sharing a range with another file */
		return is_of_type(cached->inode, S_IFBLK) ? CAUSE_INVALIDATE : CAUSE_TRUNCATE;
	}
	return CAUSE_OTHER;
}

/*
 * Return whether the inode is being removed (truncate_inode_pages_final), or an exiting task closes
 * its files: the last close of a block device drops its cache (kill_bdev).
 */
static __always_inline bool is_given_up(struct cached *cached)
{
	return READ(cached->mapping, flags) & (1UL << KERNEL_ENUM_AS_EXITING) ||
	       READ(current_task(), flags) & PF_EXITING;
}

static __always_inline u8 delete_cause(struct cached *cached, struct calibration *known)
{
	u8 cause = reclaim_cause();

	if (cause == CAUSE_OTHER)
		cause = call_cause(cached, entry_registers(known));
	if (cause == CAUSE_OTHER && is_given_up(cached))
		return CAUSE_TRUNCATE;
	return cause;
}

static __always_inline void describe(struct pagecache_event *record, struct cached *cached,
				     struct mem_cgroup *owner, u64 owner_id)
{
	struct mem_cgroup *actor = task_memcg(current_task());
	struct inode *inode = cached->inode;

	record->cgroup_id = owner_id;
	record->task_cgroup_id = actor == owner ? owner_id : memcg_id(actor);
	record->ino = READ(inode, i_ino);
	record->dev = READ(READ(inode, i_sb), s_dev);
	record->inode_id = inode_identity(record->dev, record->ino, READ(inode, i_generation));
	record->index = cached->index;
	record->nr_pages = cached->nr_pages;
}

/* From time to time, wake the recorder if the ring is half full. */
static __always_inline u64 pagecache_wake_flag(void)
{
	u32 zero = 0;
	u32 *sent = pagecache_sent.lookup(&zero);

	if (!sent || ++*sent % PAGECACHE_WAKE_EVERY ||
	    pagecache_ring.ringbuf_query(BPF_RB_AVAIL_DATA) <= PAGECACHE_WAKE_BYTES)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

/*
 * The members of a folio up to its owner. They are read in one call of the helper: a call costs
 * more than the copy.
 */
struct folio_head {
	char bytes[offsetof(struct folio, memcg_data) + sizeof(u64)];
} __attribute__((aligned(8)));

static __always_inline int emit_pagecache(struct folio *folio, u32 op)
{
	struct folio_head head;
	struct folio *copy = (struct folio *)&head;

	bpf_probe_read_kernel(&head, sizeof(head), folio);

	struct mem_cgroup *owner = folio_memcg(copy->memcg_data);
	struct memcg_info *info = memcg_info(owner);
	struct calibration *known = calibrated();

	if (!known || !is_wanted_owner(info))
		return 0;

	struct pagecache_event *record =
		or_count_lost(pagecache_ring.ringbuf_reserve(sizeof(*record)), STREAM_PAGECACHE);

	if (!record)
		return 0;

	struct cached cached = {
		.mapping = copy->mapping,
		.index = copy->index,
		.nr_pages = copy->flags & (1UL << KERNEL_ENUM_PG_head) ? folio_nr_pages(folio) : 1,
	};

	cached.inode = READ(cached.mapping, host);
#ifdef HUGETLB_INDEX_IS_OF_HUGE_PAGES
	if (cached.nr_pages > 1 && is_of_hugetlbfs(&cached))
		cached.index *= cached.nr_pages;
#endif
	record->time_ns = bpf_ktime_get_ns();
	describe(record, &cached, owner, info ? info->cgroup_id : 0);
	record->tgid = current_tgid();
	record->op = op;
	record->cause = op == OP_ADD ? add_cause(&cached, known) : delete_cause(&cached, known);
	__builtin_memset(record->pad, 0, sizeof(record->pad));

	u64 inode_id = record->inode_id;
	u32 tgid = record->tgid;

	pagecache_ring.ringbuf_submit(record, pagecache_wake_flag());
	see_current(tgid);
	see_inode(cached.inode, inode_id, info, tgid);
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

static __always_inline int note_fault(struct address_space *mapping, u64 index)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct calibration *known = calibrated();
	struct fault fault = {.mapping = mapping, .index = index};

	if (!known || !is_traced(task_memcg(current_task())))
		return 0;

	struct pt_regs *regs = entry_registers(known);

	fault.call = syscall_number(regs);
	fault.ip = user_ip(regs);
	faults.update(&pid, &fault);
	return 0;
}

PROGRAM(mm_filemap_fault)
{
	return note_fault((struct address_space *)ctx->args[0], ctx->args[1]);
}

/*
 * There is a tracepoint since "filemap: add trace events for get_pages, map_pages, and fault",
 * v6.12.
 */
static __always_inline int enter_filemap_fault(struct call *call)
{
	struct vm_fault *fault = (struct vm_fault *)call->args[0];
	struct vm_area_struct *area = READ(fault, vma);

	return note_fault(READ(READ(area, vm_file), f_mapping), READ(fault, pgoff));
}
