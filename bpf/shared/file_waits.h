/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The stream `file_wait`: waits for I/O, by process and file. A task that waits for I/O leaves its
 * CPU with `in_iowait` set (io_schedule in kernel/sched/core.c), which it clears after it has come
 * back.
 *
 * Each CPU sums the waits that end on it. A sum is sent when it is old (10 ms), displaced by
 * another, or with the sums of its CPU (charge.bpf.c). If the ring is full, it stays in its slot.
 */
#ifndef MEMCG_TRACER_FILE_WAITS_H
#define MEMCG_TRACER_FILE_WAITS_H

#include "causes.h"
#include "inodes.h"
#include "runs.h"
#include "sums.h"

#define WAIT_SLOTS 16

BPF_RINGBUF_OUTPUT(file_wait_ring, SIZED_BY_LOADER);

/* A wait under way. */
struct file_wait {
	u64 begin_ns;
	u64 inode_id; /* 0 = not known */
	u64 switches; /* task_struct.nvcsw since it began */
	u64 preemptions; /* task_struct.nivcsw, likewise */
	u64 ran_ns; /* the run time of the task, likewise */
};

BPF_HASH(file_waits, u32, struct file_wait, 16384); /* by thread id */
BPF_ARRAY(pending_waits, s64, 1); /* the number of them */

struct wait_sum {
	struct file_wait_event record; /* without a wait: the slot is free */
	u64 since_ticks;
};

BPF_PERCPU_ARRAY(wait_sums, struct wait_sum, WAIT_SLOTS);

/*
 * Return the file of the folio that the current thread has just added; 0: it added none in this
 * system call, or not within 10 ms.
 */
static __always_inline u64 added_file(u32 pid, s64 call)
{
	u32 zero = 0;
	struct cpu_runs *cpu = page_runs.lookup(&zero);
	struct page_runs *runs = cpu ? &cpu->sets[0] : NULL;
	struct run *run = runs ? &runs->runs[OP_ADD] : NULL;

	if (!runs || !run || are_busy(runs) || run->pid != pid || run->call != call)
		return 0;

	u64 last_ticks = run->first_ticks + run->record.duration_ns / TRACER_TICK_NS;

	return bpf_jiffies64() - last_ticks <= TRACER_COMBINE_TICKS ? run->record.inode_id : 0;
}

/*
 * Return the file that the current thread reads, by a page fault or by its system call; NULL: it
 * reads none.
 */
static __always_inline struct inode *read_inode(u32 pid, struct pt_regs *regs, s64 call,
						u32 activity)
{
	struct fault *fault = faults.lookup(&pid);

	if (fault && fault->call == call && fault->ip == user_ip(regs))
		return READ(fault->mapping, host);
	if (activity != DOES_READ)
		return NULL;
	return cached_inode(file_of(syscall_argument(regs, reading_arguments(call).file)));
}

/*
 * Return the file for whose content the current thread waits; 0: not known, or another I/O. A task
 * that reclaims or writes waits for writeback, or for its turn to write.
 */
static __always_inline u64 awaited_file(struct memcg_info *info, u32 pid, u32 tgid)
{
	struct pt_regs *regs = entry_registers();
	s64 call = syscall_number(regs);
	u32 activity = syscall_activity(call);
	struct inode *inode;

	if (LOAD(current_task(), flags) & PF_MEMALLOC || activity == DOES_WRITE)
		return 0;
	inode = read_inode(pid, regs, call, activity);
	return inode ? see_file(inode, info, tgid) : added_file(pid, call);
}

/* Send a sum. If the ring is full, the waits are lost if the slot is `taken` for another sum. */
static __always_inline void send_waits(struct file_wait_event *sum, bool is_taken)
{
	struct file_wait_event *record = file_wait_ring.ringbuf_reserve(sizeof(*record));

	if (record) {
		__builtin_memcpy(record, sum, sizeof(*record));
		file_wait_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	} else if (is_taken) {
		count_lost_records(STREAM_FILE_WAIT, sum->waits);
	} else {
		return;
	}
	sum->waits = 0;
}

static __always_inline void sum_wait(struct slice *slice, u64 cgroup_id, u32 tgid,
				     struct file_wait *wait, u64 end_ns)
{
	u32 slot = (wait->inode_id ^ tgid) & (WAIT_SLOTS - 1);
	struct wait_sum *sum = wait_sums.lookup(&slot);
	u64 now_ticks = bpf_jiffies64();
	u64 now_ns = bpf_ktime_get_ns();

	if (!sum)
		return;

	struct file_wait_event *record = &sum->record;
	bool is_taken = record->cgroup_id != cgroup_id || record->tgid != tgid ||
			record->inode_id != wait->inode_id;

	if (record->waits && (is_taken || now_ticks - sum->since_ticks >= TRACER_COMBINE_TICKS))
		send_waits(record, is_taken);
	if (!record->waits) {
		sum->since_ticks = now_ticks;
		record->time_ns = wait->begin_ns;
		record->cgroup_id = cgroup_id;
		record->inode_id = wait->inode_id;
		record->wait_ns = 0;
		record->tgid = tgid;
		slice->wait_slots |= 1U << slot;
	}
	if (wait->begin_ns < record->time_ns)
		record->time_ns = wait->begin_ns;
	record->duration_ns = now_ns - record->time_ns;
	record->wait_ns += end_ns - wait->begin_ns;
	record->waits++;
}

static __always_inline bool are_waits_pending(void)
{
	u32 zero = 0;
	s64 *pending = pending_waits.lookup(&zero);

	return pending && *pending;
}

static __always_inline void count_pending(s64 change)
{
	u32 zero = 0;
	s64 *pending = pending_waits.lookup(&zero);

	if (pending)
		__sync_fetch_and_add(pending, change);
}

/*
 * End the wait of the current task, which leaves its CPU, if the kernel did not report when it came
 * back. It left its CPU once since then, now: it ran from the end of the wait until now.
 */
SUBPROGRAM(end_unreported)
{
	struct task_struct *task = current_task();
	struct slice *slice = this_slice();
	u32 pid = LOAD(task, pid);
	struct file_wait *known = file_waits.lookup(&pid);

	if (!slice || !known)
		return 0;

	struct memcg_info info = memcg_info(memcg_from_css(memory_css(task)));
	struct file_wait wait = *known;
	u64 ran_ns = LOAD(task, sum_exec_runtime) - wait.ran_ns;
	u64 left = LOAD(task, nvcsw) + LOAD(task, nivcsw) - wait.switches - wait.preemptions;

	if (file_waits.delete(&pid))
		return 0;
	count_pending(-1);
	if (left == 1 && info.follow)
		sum_wait(slice, info.cgroup_id, LOAD(task, tgid), &wait,
			 bpf_ktime_get_ns() - ran_ns);
	else
		count_lost(STREAM_FILE_WAIT);
	return 0;
}

/* Begin a wait for I/O of the current task, if it is in a traced memcg. */
SUBPROGRAM(begin_file_wait)
{
	struct task_struct *task = current_task();
	struct memcg_info info = memcg_info(memcg_from_css(memory_css(task)));
	u32 pid = LOAD(task, pid);
	u32 tgid = LOAD(task, tgid);

	if (!info.follow)
		return 0;
	see_current(tgid);

	struct file_wait wait = {
		.inode_id = awaited_file(&info, pid, tgid),
		.begin_ns = bpf_ktime_get_ns(),
		.switches = LOAD(task, nvcsw),
		.preemptions = LOAD(task, nivcsw),
		.ran_ns = LOAD(task, sum_exec_runtime),
	};

	if (file_waits.update(&pid, &wait))
		count_lost(STREAM_FILE_WAIT);
	else
		count_pending(1);
	return 0;
}

/* End the wait of a task that comes back, which is in the memcg of the slice. */
SUBPROGRAM(end_file_wait)
{
	struct task_struct *task = (struct task_struct *)FIRST_ARGUMENT;
	struct slice *slice = this_slice();
	u32 pid = READ(task, pid);
	u32 slot = slice ? slice->slot : 0;
	struct account *account = accounts.lookup(&slot);
	struct file_wait *known = file_waits.lookup(&pid);

	if (!slice || !known || !account)
		return 0;

	struct file_wait wait = *known;

	if (file_waits.delete(&pid))
		return 0;
	count_pending(-1);
	/* Otherwise the task came back while it was not traced, and left again unseen. */
	if (wait.switches != READ(task, nvcsw)) {
		count_lost(STREAM_FILE_WAIT);
		return 0;
	}
	sum_wait(slice, account->cgroup_id, READ(task, tgid), &wait, bpf_ktime_get_ns());
	wake_recorder();
	return 0;
}

SUBPROGRAM(send_wait_sum)
{
	u32 slot = FIRST_ARGUMENT & (WAIT_SLOTS - 1);
	struct slice *slice = this_slice();
	struct wait_sum *sum = wait_sums.lookup(&slot);

	if (!slice || !sum || !slice->wait_slots)
		return 1;
	if (!(slice->wait_slots & 1U << slot))
		return 0;
	send_waits(&sum->record, false);
	if (!sum->record.waits)
		slice->wait_slots &= ~(1U << slot);
	return 0;
}

/* Send the waits that this CPU has summed. */
static __always_inline void send_wait_sums(struct slice *slice)
{
	u64 nothing = 0;

	if (slice->wait_slots)
		LOOP(send_wait_sum, WAIT_SLOTS, &nothing);
}

#endif
