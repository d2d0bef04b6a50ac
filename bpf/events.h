/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The wire records: what each BPF program puts in its ring, read by user space as an array.
 *
 * tracer/wire.py says the same for NumPy; tests/test_schema.py compiles this file and compares every size,
 * offset and number. Plain integers only, every field naturally aligned, so no compiler adds padding that is
 * not written down. The includer defines u8 to u64 and s8 to s64.
 */
#ifndef MEMCG_TRACER_EVENTS_H
#define MEMCG_TRACER_EVENTS_H

#define TRACER_COMM_LEN 16
#define TRACER_PATH_LEN 416
#define TRACER_STATE_ITEMS 64
#define TRACER_KERNEL_FRAMES 64
#define TRACER_USER_FRAMES 127 /* kernel.perf_event_max_stack, if nobody changed it */

enum category {
	CATEGORY_ANON,
	CATEGORY_FILE,
	CATEGORY_SHMEM,
	CATEGORY_SLAB_RECLAIMABLE,
	CATEGORY_SLAB_UNRECLAIMABLE,
	CATEGORY_KERNEL_STACK,
	CATEGORY_PAGE_TABLES,
	CATEGORY_SOCK,
	CATEGORY_PERCPU,
	CATEGORY_VMALLOC,
	CATEGORY_SWAP,
	CATEGORY_KERNEL,
	CATEGORY_COUNT,
};

enum op {
	OP_ADD,
	OP_DELETE,
};

enum cause {
	CAUSE_OTHER,
	CAUSE_READ,
	CAUSE_WRITE,
	CAUSE_READAHEAD,
	CAUSE_FAULT,
	CAUSE_RECLAIM_MEMCG,
	CAUSE_RECLAIM_DIRECT,
	CAUSE_RECLAIM_KSWAPD,
	CAUSE_TRUNCATE,
	CAUSE_INVALIDATE,
	CAUSE_DROP_CACHES,
};

enum reclaim_kind {
	RECLAIM_MEMCG,
	RECLAIM_DIRECT,
	RECLAIM_KSWAPD,
	RECLAIM_SOFTLIMIT,
	RECLAIM_PROACTIVE,
};

enum target_source {
	TARGET_NONE,
	TARGET_LIMIT,
	TARGET_HIGH,
	TARGET_SCANNED,
	TARGET_NAMED,
};

enum stall_kind {
	STALL_OTHER,
	STALL_DIRTY, /* more pages are dirty than may be: balance_dirty_pages() */
	STALL_WRITEBACK, /* reclaim found too much under writeback */
	STALL_ISOLATED, /* others had taken too many pages off the lists */
	STALL_NOPROGRESS, /* reclaim freed nothing */
	STALL_CONGESTED,
	STALL_SWAP_IN, /* a page fault on what was swapped out */
	STALL_HIGH, /* memory.high: reclaims, and sleeps for a penalty */
};

enum constraint {
	CONSTRAINT_UNKNOWN,
	CONSTRAINT_MEMCG,
	CONSTRAINT_GLOBAL,
	CONSTRAINT_CPUSET,
	CONSTRAINT_MEMPOLICY,
};

enum cgroup_event_kind {
	CGROUP_SEEN,
	CGROUP_MKDIR,
	CGROUP_RMDIR,
	CGROUP_RENAME,
};

/* Whether a cgroup's events are recorded, as decided when it was made. */
enum follow {
	FOLLOW_NO,
	FOLLOW_YES,
	FOLLOW_UNDECIDED, /* recorded for now: user space knows names that the kernel does not, and decides */
};

enum task_event_kind {
	TASK_SEEN,
	TASK_EXEC,
	TASK_EXIT,
};

/* The sum of `updates` changes of one category of one cgroup by one process. */
struct charge_event {
	u64 time_ns;
	u64 cgroup_id;
	u64 usage_pages; /* page_counter `memory` of the cgroup when the record was made */
	u64 limit_pages;
	s64 delta_bytes;
	u32 tgid;
	u32 updates;
	u8 category;
	u8 pad[7];
};

/* One folio entered or left the page cache. */
struct pagecache_event {
	u64 time_ns;
	u64 cgroup_id; /* owner: who the folio is charged to; 0 = nobody */
	u64 task_cgroup_id; /* actor */
	u64 inode_id;
	u64 ino;
	u64 index; /* of the folio's first page */
	u32 dev;
	u32 tgid;
	u32 nr_pages;
	u8 op;
	u8 cause;
	u8 pad[2];
};

/* One reclaim attempt, begin to end; time_ns is the begin. */
struct reclaim_event {
	u64 time_ns;
	u64 duration_ns;
	u64 cgroup_id; /* target; 0 = none or not known */
	u64 task_cgroup_id;
	u64 usage_pages; /* of the target at the end */
	u64 limit_pages;
	u64 reclaimed;
	u32 scanned_anon;
	u32 scanned_file;
	u32 reclaimed_anon;
	u32 reclaimed_file;
	u32 nr_dirty_anon;
	u32 nr_dirty_file;
	u32 nr_unqueued_dirty_anon;
	u32 nr_unqueued_dirty_file;
	u32 nr_writeback_anon;
	u32 nr_writeback_file;
	u32 nr_immediate_anon;
	u32 nr_immediate_file;
	u32 nr_activate_anon;
	u32 nr_activate_file;
	u32 nr_ref_keep_anon;
	u32 nr_ref_keep_file;
	u32 nr_unmap_fail_anon;
	u32 nr_unmap_fail_file;
	u32 written_anon; /* pages given to swap, and to the file system */
	u32 written_file;
	u32 slab_scanned; /* objects */
	u32 slab_reclaimed;
	u32 throttles; /* times that the thread was made to wait */
	u32 gfp;
	u32 tgid;
	u32 pid;
	u8 kind;
	u8 target_source;
	s8 priority; /* lowest that a list was shrunk at; -1 = none was */
	s8 order; /* -1 = not known */
	u8 pad[4];
};

/* One time that a task was made to wait for memory; time_ns is the begin. */
struct stall_event {
	u64 time_ns;
	u64 duration_ns;
	u64 cgroup_id; /* of the task */
	u32 tgid;
	u32 pid;
	u8 kind;
	u8 pad[7];
};

enum swap_io_op {
	SWAP_IO_WRITE,
	SWAP_IO_READ,
};

/* Pages of one owner that one bio writes to swap, or reads from it; time_ns is when it was queued. */
struct swap_io_event {
	u64 time_ns;
	u64 duration_ns; /* 0 = its end was not seen */
	u64 cgroup_id; /* owner; 0 = nobody */
	u64 task_cgroup_id; /* actor */
	u32 tgid;
	u32 pid;
	u32 nr_pages;
	u8 op;
	u8 pad[3];
};

/* One task marked as OOM victim. */
struct oom_event {
	u64 time_ns;
	u64 invocation; /* the same for all victims of one decision */
	u64 owner_cgroup_id; /* whose limit was hit; 0 = not a memcg OOM, or not known */
	u64 owner_usage_pages;
	u64 owner_limit_pages;
	u64 trigger_cgroup_id;
	u64 victim_cgroup_id;
	s64 anon_pages; /* mm counters of the victim; -1 = it had no mm left */
	s64 file_pages;
	s64 shmem_pages;
	s64 swap_entries;
	s64 pgtables_bytes;
	u64 total_vm_pages; /* of its address space; data_vm: private and writable, exec_vm: code, stack_vm: its stack */
	u64 data_vm_pages;
	u64 exec_vm_pages;
	u64 stack_vm_pages;
	u64 pgscan; /* the owner's own, since the trace began (counts.bpf.c); 0 where that program is not attached */
	u64 pgsteal;
	u64 total_pages; /* what badness is measured against (oom_control.totalpages); 0 = not known */
	u64 start_code; /* of the trigger's program, as in stack_sample_event */
	u64 start_stack;
	u32 trigger_tgid;
	u32 trigger_pid;
	u32 victim_tgid;
	u32 victim_pid;
	u32 victim_uid;
	u32 victim_threads;
	s32 kernel_stack_id; /* negative = no stack */
	s32 user_stack_id;
	u32 gfp; /* of the decision, else of the trigger's last reclaim attempt; 0 = it made none */
	s16 oom_score_adj;
	u8 constraint;
	u8 owner_has_children;
	u8 state_items; /* how many of `state` were read; 0 = none could be */
	u8 is_told; /* constraint, owner, gfp and order are the kernel's own (struct oom_control), not inferred */
	s8 order; /* -1 = not known */
	u8 pad[5];
	char trigger_comm[TRACER_COMM_LEN];
	char victim_comm[TRACER_COMM_LEN];
	/* The owner's own counters, summed over the CPUs, in the kernel's order and units (memcg_vmstats_percpu). */
	s64 state[TRACER_STATE_ITEMS];
};

/* One task that an OOM decision weighed. */
struct candidate_event {
	u64 time_ns;
	u64 invocation; /* as in the records of those that it killed */
	u64 cgroup_id;
	u64 total_pages;
	s64 badness; /* as oom_badness() returned it; the least number there is: not to be killed */
	s64 anon_pages; /* mm counters; -1 = it had no mm left */
	s64 file_pages;
	s64 shmem_pages;
	s64 swap_entries;
	s64 pgtables_bytes;
	u32 trigger_pid;
	u32 tgid;
	u32 pid;
	s16 oom_score_adj;
	u8 pad[2];
	char comm[TRACER_COMM_LEN];
};

struct cgroup_event {
	u64 time_ns;
	u64 cgroup_id;
	u64 parent_id; /* 0 = the root */
	u64 memcg; /* kernel address of its struct mem_cgroup, to read its counters by; 0 = not known */
	u8 event;
	u8 follow;
	u8 pad[6];
	char path[TRACER_PATH_LEN]; /* as in /proc/PID/cgroup; cut where it is longer */
};

struct task_event {
	u64 time_ns;
	u64 start_ns; /* CLOCK_BOOTTIME */
	u64 cgroup_id;
	u32 tgid;
	u32 ppid;
	u32 uid;
	u8 event;
	u8 pad[3];
	char comm[TRACER_COMM_LEN];
};

struct inode_event {
	u64 time_ns;
	u64 inode_id;
	u64 cgroup_id; /* owner of the folio by which the file was seen; 0 = nobody */
	u64 ino;
	u64 size_bytes;
	u32 dev;
	u32 rdev; /* of a block device's own cache: which device */
	u32 mode;
	u32 nlink;
	u32 mount_ns; /* of the acting task; 0 = it is exiting */
	u32 tgid; /* the acting task, its parent, and the init of its pid namespace: who is there can tell its mounts */
	u32 ppid;
	u32 reaper_tgid;
	u16 path_len;
	u8 depth; /* names in `path` */
	u8 truncated; /* the path had more names, or longer ones, than fit */
	u8 is_pseudo; /* the one name is what the kernel calls it: it is in no directory */
	u8 pad[3];
	char fs_type[16];
	char path[TRACER_PATH_LEN]; /* names from the leaf to the file system's root, each ended by '/' */
};

/* Where a task was that charged: the sample of `weight_bytes` that its process charged. */
struct stack_sample_event {
	u64 time_ns;
	u64 cgroup_id;
	u64 weight_bytes;
	u64 start_code; /* mm_struct's, which tell one program of a process from another */
	u64 start_stack;
	u32 tgid;
	u32 pid;
	u8 category;
	u8 pad[7];
	u64 kernel[TRACER_KERNEL_FRAMES]; /* addresses, innermost first, 0 behind the last */
	u64 user[TRACER_USER_FRAMES];
};

#endif
