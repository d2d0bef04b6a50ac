/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The cause for which a folio enters or leaves the page cache. It is derived from the present
 * operation of the acting task: a reclaim attempt (attempts.h), a page fault, or a system call.
 */
#ifndef MEMCG_TRACER_CAUSES_H
#define MEMCG_TRACER_CAUSES_H

#include "attempts.h"
#include "inodes.h"
#include "syscalls.h"
#include "user_memory.h"

#define PROC_SUPER_MAGIC 0x9fa0 /* include/uapi/linux/magic.h */

/*
 * The last page fault of a thread on a file. The fault has no end event. But the registers saved at
 * kernel entry differ between the fault and what the thread does next, so a folio added under the
 * same (call, instruction) belongs to the fault.
 */
struct fault {
	s64 call;
	u64 ip;
	struct address_space *mapping;
};

BPF_TABLE("lru_hash", u32, struct fault, faults, 8192); /* by thread id */

/* What happened to a folio. The verifier knows the types of the pointers. */
struct event {
	struct address_space *mapping;
	struct inode *inode;
	struct cgroup_subsys_state *actor; /* of the acting task, for the memory controller */
	u64 ino;
	u64 index;
	s64 call; /* of an addition: the system call of the acting task; -1 = none */
	u64 ticks; /* the time: reading the clock would be the most expensive step */
	u32 nr_pages;
	u32 dev;
	u32 i_generation;
	u32 tgid;
	u32 pid;
	u8 cause;
};

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFBLK 0060000

static __always_inline bool is_of_type(struct inode *inode, u32 type)
{
	return (LOAD(inode, i_mode) & S_IFMT) == type;
}

/*
 * Return whether a folio holds some of the requested range; otherwise it was read ahead. The
 * metadata of a file is in the cache of the block device, and always needed. The cache of a file in
 * a stacked file system is in another inode, at the same index.
 */
static __always_inline bool is_asked_for(struct event *event, struct pt_regs *regs, s64 call)
{
	struct reading reading = reading_arguments(call);
	u64 count = syscall_argument(regs, reading.count);
	u64 begin = 0;

	if (!is_of_type(event->inode, S_IFREG))
		return true;
	if (reading.position != NO_ARGUMENT)
		begin = syscall_argument(regs, reading.position);
	if (reading.position_is_pointer && begin)
		read_user(&begin, sizeof(begin), (void *)begin);
	else if (reading.position == NO_ARGUMENT || reading.position_is_pointer)
		begin = READ(file_of(syscall_argument(regs, reading.file)), f_pos);
	return begin < (event->index + event->nr_pages) * PAGE_SIZE &&
	       begin + count > event->index * PAGE_SIZE;
}

#define HUGETLBFS_MAGIC 0x958458f6 /* include/uapi/linux/magic.h */

static __always_inline bool is_of_hugetlbfs(struct event *event)
{
	return LOAD(LOAD(event->inode, i_sb), s_magic) == HUGETLBFS_MAGIC;
}

/* Return the last fault of the current thread on a file; NULL: it had none, or no task maps it. */
static __always_inline struct fault *last_fault(struct address_space *mapping)
{
	u32 pid = bpf_get_current_pid_tgid();

	return LOAD(mapping, rb_node) ? faults.lookup(&pid) : NULL;
}

/* Return whether the system call, copy_file_range(2), reads the file of a folio. */
static __always_inline bool is_copied_from(struct event *event, struct pt_regs *regs)
{
	return cached_inode(file_of(syscall_argument(regs, 0))) == event->inode;
}

static __always_inline u8 add_cause(struct event *event)
{
	struct pt_regs *regs = entry_registers();
	s64 call = syscall_number(regs);
	struct fault *fault = last_fault(event->mapping);

	event->call = call;
	if (fault && fault->call == call && fault->ip == user_ip(regs) &&
	    fault->mapping == event->mapping)
		return CAUSE_FAULT;
	switch (syscall_activity(call)) {
	case DOES_READ:
		return is_asked_for(event, regs, call) ? CAUSE_READ : CAUSE_READAHEAD;
	case DOES_READ_SOMEHOW:
		return CAUSE_READ;
	case DOES_COPY:
		return is_copied_from(event, regs) ? CAUSE_READ : CAUSE_WRITE;
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
	if (regs && call < 0 && is_of_hugetlbfs(event))
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
	u32 flags = LOAD(current_task(), flags);

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

static __always_inline u8 call_cause(struct event *event, struct pt_regs *regs)
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
		return is_of_type(event->inode, S_IFBLK) ? CAUSE_INVALIDATE : CAUSE_TRUNCATE;
	}
	return CAUSE_OTHER;
}

/*
 * Return whether the inode is being removed (truncate_inode_pages_final), or an exiting task closes
 * its files: the last close of a block device drops its cache (kill_bdev).
 */
static __always_inline bool is_given_up(struct event *event)
{
	return LOAD(event->mapping, flags) & (1UL << KERNEL_ENUM_AS_EXITING) ||
	       LOAD(current_task(), flags) & PF_EXITING;
}

static __always_inline u8 delete_cause(struct event *event)
{
	u8 cause = reclaim_cause();

	if (cause == CAUSE_OTHER)
		cause = call_cause(event, entry_registers());
	if (cause == CAUSE_OTHER && is_given_up(event))
		return CAUSE_TRUNCATE;
	return cause;
}

#endif
