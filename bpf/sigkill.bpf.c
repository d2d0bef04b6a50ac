// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `sigkill`: each SIGKILL that ends a process, with its sender. signal_generate runs in
 * the context of the sender, after the signal was queued (__send_signal_locked in
 * kernel/signal.c). SIGKILL to a thread ends its whole process as well (complete_signal).
 *
 * The kernel's reason is in the siginfo and in the state of the sender: what a task sends has a
 * struct kernel_siginfo, what the kernel sends has a number in its place.
 */

#include "shared/limits.h"
#include "shared/syscalls.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(sigkill_ring, SIZED_BY_LOADER);

#define SIGNAL_KILL 9
#define SIGNAL_TERM 15
#define DELIVERED 0 /* TRACE_SIGNAL_DELIVERED in include/trace/events/signal.h */

/* include/linux/sched/signal.h, numbers in the place of a pointer. */
#define SIGINFO_NONE 0 /* SEND_SIG_NOINFO */
#define SIGINFO_PRIVILEGED 2 /* SEND_SIG_PRIV is 1; before v4.20, SEND_SIG_FORCED was 2 */

/* si_code of signals that a task sends (include/uapi/asm-generic/siginfo.h). */
#define FROM_USER 0
#define FROM_TKILL (-6)

/*
 * The mode of a task that was ended for a forbidden system call (kernel/seccomp.c), since
 * 495ac3069a66 ("seccomp: Invalidate seccomp mode to catch death failures"), v5.17.
 */
#define SECCOMP_MODE_DEAD 3

/* The last SIGTERM to a process; `start` tells it from a later one with the same number. */
struct sigterm {
	u64 time_ns;
	u64 start;
};

BPF_TABLE("lru_hash", u32, struct sigterm, sigterms, 1024); /* by tgid */

static __always_inline int note_sigterm(struct task_struct *task)
{
	u32 tgid = READ(task, tgid);
	struct sigterm sigterm = {.time_ns = bpf_ktime_get_ns(), .start = process_start(task)};

	if (is_traced(task_memcg(task)))
		sigterms.update(&tgid, &sigterm);
	return 0;
}

static __always_inline u64 since_sigterm_ns(struct task_struct *task, u64 now_ns)
{
	u32 tgid = READ(task, tgid);
	struct sigterm *last = sigterms.lookup(&tgid);

	return last && last->start == process_start(task) && last->time_ns < now_ns
		       ? now_ns - last->time_ns
		       : 0;
}

/* Return whether a task is the init of a pid namespace other than the first. */
static __always_inline bool is_namespace_init(struct task_struct *task)
{
	struct pid *pid = READ(task, thread_pid);
	u64 level = READ(pid, level);
	u64 innermost = (u64)pid + offsetof(struct pid, numbers) + level * sizeof(struct upid);

	return level && READ((struct upid *)innermost, nr) == 1;
}

/* Return whether the current system call has the file `cgroup.kill` as its first argument. */
static __always_inline bool writes_cgroup_kill(void)
{
	struct pt_regs *regs = entry_registers();
	u64 name[2] = {}; /* "cgroup.kill" and its zero */
	struct dentry *dentry;

	if (syscall_activity(syscall_number(regs)) != DOES_WRITE)
		return false;
	dentry = READ(file_of(syscall_argument(regs, 0)), dentry);
	bpf_probe_read_kernel(name, 12, READ(dentry, d_name.name));
	return name[0] == 0x6b2e70756f726763 && name[1] == 0x6c6c69;
}

/* Return the way of a signal that a task sent; KILL_WAY_OTHER: by none of these system calls. */
static __always_inline u8 way_of_syscall(void)
{
	struct pt_regs *regs = entry_registers();

	switch (syscall_number(regs)) {
	case NR(62, 129): /* kill: 0 and negative numbers are groups */
		return (s32)syscall_argument(regs, 0) > 0 ? KILL_WAY_KILL : KILL_WAY_GROUP;
	case NR(129, 138): /* rt_sigqueueinfo */
	case NR(200, 130): /* tkill */
	case NR(234, 131): /* tgkill */
	case NR(297, 240): /* rt_tgsigqueueinfo */
		return KILL_WAY_KILL;
	case NR(424, 424): /* pidfd_send_signal */
		return KILL_WAY_PIDFD;
	}
	return KILL_WAY_OTHER;
}

/* Return the way of a signal that the kernel sent. */
static __always_inline u8 way_of_kernel(struct task_struct *sender, u64 siginfo)
{
	bool is_exiting = READ(sender, flags) & PF_EXITING;

	if (siginfo != SIGINFO_NONE) /* zap_pid_ns_processes() in kernel/pid_namespace.c */
		return is_exiting && is_namespace_init(sender) ? KILL_WAY_PID_NAMESPACE
							       : KILL_WAY_OTHER;
	if (is_exiting) /* reparent_leader() in kernel/exit.c */
		return KILL_WAY_PARENT_DEATH;
	return writes_cgroup_kill() ? KILL_WAY_CGROUP_KILL : KILL_WAY_OTHER;
}

#define SET_PARENT(record, number, task)                                       \
	({                                                                     \
		task = READ(READ(task, group_leader), real_parent);            \
		(record)->parent##number##_tgid = READ(task, tgid);            \
		bpf_probe_read_kernel((record)->parent##number##_comm,         \
				      sizeof((record)->parent##number##_comm), \
				      &READ(task, group_leader)->comm);        \
	})

static __always_inline void describe_sender(struct sigkill_event *record)
{
	struct task_struct *task = current_task();

	record->sender_cgroup_id = memcg_id(task_memcg(task));
	record->sender_tgid = current_tgid();
	bpf_probe_read_kernel(record->sender_comm, sizeof(record->sender_comm),
			      &READ(task, group_leader)->comm);
	SET_PARENT(record, 1, task);
	SET_PARENT(record, 2, task);
	SET_PARENT(record, 3, task);
}

static __always_inline int emit_sigkill(struct task_struct *task, u8 way, bool is_privileged,
					bool has_sender)
{
	struct mem_cgroup *memcg = task_memcg(task);
	struct counter counter;

	if (!is_traced(memcg))
		return 0;

	struct sigkill_event *record =
		or_count_lost(sigkill_ring.ringbuf_reserve(sizeof(*record)), STREAM_SIGKILL);

	if (!record)
		return 0;
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = memcg_id(memcg);
	counter = read_counter(&memcg->memory);
	record->usage_pages = counter.usage_pages;
	record->limit_pages = counter.limit_pages;
	record->since_sigterm_ns = since_sigterm_ns(task, record->time_ns);
	record->tgid = READ(task, tgid);
	record->start_ns = process_start(task);
	record->sender_tid = bpf_get_current_pid_tgid();
	record->way = way;
	record->is_privileged = is_privileged;
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), &READ(task, group_leader)->comm);
	if (has_sender)
		describe_sender(record);
	sigkill_ring.ringbuf_submit(record, 0);
	return 0;
}

/*
 * A signal is sent. A process that is dying already has no result "delivered", unless it dumps its
 * core. A timer's signal comes in the context of any task (posix_timer_fn in
 * kernel/time/posix-timers.c).
 */
PROGRAM(sigkill)
{
	struct task_struct *task = (struct task_struct *)ctx->args[2];
	u32 number = ctx->args[0];
	struct signal_struct *signal;
	u64 siginfo;
	s32 code;
	u8 way;

	if (number == SIGNAL_TERM)
		return note_sigterm(task);
	if (number != SIGNAL_KILL || (u32)ctx->args[4] != DELIVERED)
		return 0;
	signal = READ(task, signal);
	if (!READ(signal, counter) || READ(signal, core_state) || READ(task, flags) & PF_KTHREAD)
		return 0;
	/* The verifier takes this argument for a pointer that is not NULL, and drops code for NULL.
	 */
	bpf_probe_read_kernel(&siginfo, sizeof(siginfo), &ctx->args[1]);
	way = way_of_syscall();
	/* kill(2) passes no structure on 7.3. */
	if (siginfo == SIGINFO_NONE && way != KILL_WAY_OTHER)
		return emit_sigkill(task, way, false, true);
	if (siginfo <= SIGINFO_PRIVILEGED) {
		way = way_of_kernel(current_task(), siginfo);
		return emit_sigkill(task, way, siginfo != SIGINFO_NONE,
				    way != KILL_WAY_OTHER ||
					    READ(current_task(), flags) & PF_EXITING);
	}
	code = READ((struct kernel_siginfo *)siginfo, si_code);
	return emit_sigkill(task, way, false,
			    way != KILL_WAY_OTHER || code == FROM_USER || code == FROM_TKILL);
}

/* A thread exits: do_exit(SIGKILL) in kernel/seccomp.c. */
PROGRAM(seccomp_exit)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

#ifdef HAS_task_struct_mode
	if (LOAD(task, mode) == SECCOMP_MODE_DEAD && LOAD(task, exit_code) == SIGNAL_KILL &&
	    !READ(READ(task, signal), counter))
		return emit_sigkill(task, KILL_WAY_SECCOMP, false, false);
#endif
	return 0;
}
