// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The streams `oom` and `candidate`: OOM kills, and the tasks whose badness the kernel computed for
 * them. mark_victim runs for each killed task, in the context of the task whose allocation
 * failed: the trigger's stacks and the owner's counters are those at the decision. The victim was
 * sent SIGKILL just before (__oom_kill_process in mm/oom_kill.c), so a victim on another CPU may
 * already have lost its mm. If functions can be hooked, the rest is read from struct oom_control on
 * the trigger's stack.
 */

#include "shared/attempts.h"
#include "shared/decisions.h"
#include "shared/limits.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(oom_ring, SIZED_BY_LOADER);
BPF_RINGBUF_OUTPUT(candidate_ring, SIZED_BY_LOADER);
#define CANDIDATE_WAKE_BYTES (SETTING(candidate_ring_bytes) / 2)

BPF_STACK_TRACE(stacks, 1024);

/*
 * The task to which a thread has last sent SIGKILL on behalf of the kernel. A marked task is killed
 * if the OOM killer has just sent it the signal (__oom_kill_process in mm/oom_kill.c). A task that
 * was dying already, such as a further thread of a killed process, is only marked when it reaches a
 * limit, so that it may use memory reserves (task_will_free_mem): memory.events and the kernel log
 * do not count it as a kill.
 */
struct kill_signal {
	u64 task;
	u64 time_ns;
};

BPF_TABLE("lru_hash", u32, struct kill_signal, kill_signals, 1024); /* by thread id */

#define SIGKILL 9
#define LAST_SPECIAL_SIGINFO 2 /* SEND_SIG_PRIV; before v4.20, SEND_SIG_FORCED */

PROGRAM(signal_generate)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct kill_signal sent = {.task = ctx->args[2], .time_ns = bpf_ktime_get_ns()};

	if ((u32)ctx->args[0] == SIGKILL && ctx->args[1] && ctx->args[1] <= LAST_SPECIAL_SIGINFO)
		kill_signals.update(&pid, &sent);
	return 0;
}

/* Return whether the current thread kills a task, after its last reclaim attempt, or marks it. */
static __always_inline bool is_killed(struct task_struct *victim, struct ended *ended)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct kill_signal *sent = kill_signals.lookup(&pid);

	return sent && sent->task == (u64)victim && (!ended || sent->time_ns >= ended->time_ns);
}

static __always_inline int enter_oom(struct call *call)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct decision decision = {
		.time_ns = bpf_ktime_get_ns(),
		.control = (struct oom_control *)call->args[0],
	};

	decisions.update(&pid, &decision);
	return 0;
}

static __always_inline int leave_oom(struct call *call)
{
	u32 pid = bpf_get_current_pid_tgid();

	decisions.delete(&pid);
	return 0;
}

#define STATE_ITEMS ARRAY_SIZE(((struct memcg_vmstats_percpu *)0)->state)

struct cpu_state {
	s64 items[TRACER_STATE_ITEMS];
};

BPF_PERCPU_ARRAY(one_cpu, struct cpu_state, 1); /* too large for the stack */

/* PGSCAN_* and PGSTEAL_* are counted with the other events, or with the sizes. */
#ifdef RECLAIM_COUNTS_ARE_NODE_STATS
#define COUNTED_RECLAIM state
#else
#define COUNTED_RECLAIM events
#endif
#define MAX_RECLAIM_KINDS 4

/* Add up the counts of the kinds of reclaim, which are adjacent. */
static __always_inline u64 sum_kinds(struct memcg_vmstats_percpu *stats, u32 first, u32 kinds)
{
	u64 sum = 0;

	for (u32 kind = 0; kind < MAX_RECLAIM_KINDS; kind++)
		if (kind < kinds)
			sum += READ(stats, COUNTED_RECLAIM[first + kind]);
	return sum;
}

/* The counters of an owner on all CPUs. */
struct owner_sum {
	u64 stats; /* mem_cgroup.vmstats_percpu */
	struct oom_event *record;
};

SUBPROGRAM(add_owner_counters)
{
	struct owner_sum *sum = (struct owner_sum *)SECOND_ARGUMENT;
	u32 zero = 0;
	struct cpu_state *state = one_cpu.lookup(&zero);
	struct calibration *known = calibrated();
	struct memcg_vmstats_percpu *stats =
		(struct memcg_vmstats_percpu *)cpu_stats(sum->stats, FIRST_ARGUMENT);
	struct oom_event *record = sum->record;

	if (!state || !known || !stats)
		return 0;
	bpf_probe_read_kernel(state->items, sizeof(stats->state), &stats->state);
#pragma clang loop unroll(disable)
	for (u32 item = 0; item < STATE_ITEMS; item++)
		record->state[item] += state->items[item];
	record->pgscan += sum_kinds(stats, known->pgscan_at, known->reclaim_kinds);
	record->pgsteal += sum_kinds(stats, known->pgsteal_at, known->reclaim_kinds);
	record->state_items = STATE_ITEMS;
	return 0;
}

/*
 * Sum the owner's own counters over the CPUs. The sums are exact at this instant; memory.stat lags
 * until its next flush (mem_cgroup_flush_stats). `state_items` stays 0 if they cannot be found.
 */
static __always_inline void sum_counters(struct oom_event *record, struct mem_cgroup *owner)
{
	struct owner_sum sum = {.stats = (u64)READ(owner, vmstats_percpu), .record = record};

	LOOP(add_owner_counters, TRACER_CPUS, &sum);
}

static __always_inline void describe_owner(struct oom_event *record, struct mem_cgroup *owner)
{
	struct counter counter = read_counter(&owner->memory);
	struct list_head *children = &owner->css.children;

	record->constraint = CONSTRAINT_MEMCG;
	record->owner_cgroup_id = memcg_id(owner);
	record->owner_usage_pages = counter.usage_pages;
	record->owner_limit_pages = counter.limit_pages;
	record->owner_has_children = READ(children, next) != children;
	SET_EFFECTIVE(record, owner);
	sum_counters(record, owner);
}

/* Describe the decision as the kernel made it. */
static __always_inline void describe_decision(struct oom_event *record, struct decision *decision)
{
	struct oom_control *control = decision->control;

	record->is_told = 1;
	record->invocation = decision->time_ns;
	record->constraint = constraint_of(READ(control, constraint));
	record->gfp = READ(control, gfp_mask);
	record->order = READ(control, order);
	record->total_pages = READ(control, totalpages);
}

/* Describe the decision by the trigger's last reclaim attempt. */
static __always_inline void infer_decision(struct oom_event *record, struct ended *ended)
{
	/* All victims of one decision follow the same last attempt of the same thread. */
	record->invocation = ended ? ended->time_ns : record->time_ns;
	record->gfp = ended ? ended->gfp : 0;
	record->order = -1;
	record->constraint =
		ended && ended->kind == RECLAIM_DIRECT ? CONSTRAINT_GLOBAL : CONSTRAINT_UNKNOWN;
}

/*
 * Return a counter of an mm as get_mm_counter() reads it for the kernel's log: without the
 * remainders of the CPUs, and at least 0.
 */
static __always_inline s64 mm_count(struct mm_struct *mm, u32 member)
{
	/* Until f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), v6.2. */
#ifdef HAS_mm_struct_count
	s64 count = READ(mm, count[member]);
#else
	s64 count = READ(mm, rss_stat[member].count);
#endif

	return count < 0 ? 0 : count;
}

/*
 * Set the numbers that determine a task's badness. A zombie leader has no mm, even if other threads
 * of its process still run.
 */
#define DESCRIBE_MM(record, mm)                                                          \
	({                                                                               \
		(record)->anon_pages = mm ? mm_count(mm, KERNEL_ENUM_MM_ANONPAGES) : -1; \
		(record)->file_pages = mm_count(mm, KERNEL_ENUM_MM_FILEPAGES);           \
		(record)->shmem_pages = mm_count(mm, KERNEL_ENUM_MM_SHMEMPAGES);         \
		(record)->swap_entries = mm_count(mm, KERNEL_ENUM_MM_SWAPENTS);          \
		(record)->pgtables_bytes = READ(mm, pgtables_bytes);                     \
	})

static __always_inline void describe_victim(struct oom_event *record, struct task_struct *victim)
{
	struct mm_struct *mm = READ(victim, mm);

	record->victim_tgid = READ(victim, tgid);
	record->victim_pid = READ(victim, pid);
	record->start_ns = process_start(victim);
	record->victim_uid = READ(READ(victim, cred), uid);
	record->victim_threads = READ(READ(victim, signal), nr_threads);
	record->oom_score_adj = READ(READ(victim, signal), oom_score_adj);
	record->victim_cgroup_id = memcg_id(task_memcg(victim));
	bpf_probe_read_kernel(record->victim_comm, sizeof(record->victim_comm), &victim->comm);
	DESCRIBE_MM(record, mm);
	record->total_vm_pages = READ(mm, total_vm);
	record->data_vm_pages = READ(mm, data_vm);
	record->exec_vm_pages = READ(mm, exec_vm);
	record->stack_vm_pages = READ(mm, stack_vm);
}

/*
 * Return whether to record a kill. A kill for the limit of a cgroup is recorded if owner, trigger
 * or victim is traced, even if the limit has room again and the owner cannot be found. A kill for
 * the machine's shortage is always recorded.
 */
static __always_inline bool is_wanted_kill(struct mem_cgroup *owner, bool is_for_limit,
					   struct mem_cgroup *trigger, struct task_struct *victim)
{
	return !is_for_limit || is_traced(owner) || is_traced(trigger) ||
	       is_traced(task_memcg(victim));
}

static __always_inline int emit_kill(struct task_struct *victim, s32 kernel_stack, s32 user_stack)
{
	struct mem_cgroup *trigger = charged_memcg(current_task());
	struct mm_struct *mm = READ(current_task(), mm);
	u32 pid = bpf_get_current_pid_tgid();
	struct decision *decision = decisions.lookup(&pid);
	struct ended *ended = last_ended.lookup(&pid);
	struct mem_cgroup *owner = kill_owner(decision, ended, trigger);
	bool is_for_limit = owner || (!decision && ended && ended->kind == RECLAIM_MEMCG);

	if (!is_killed(victim, ended))
		return 0;
	if (!is_wanted_kill(owner, is_for_limit, trigger, victim))
		return 0;

	struct oom_event *record =
		or_count_lost(oom_ring.ringbuf_reserve(sizeof(*record)), STREAM_OOM);

	if (!record)
		return 0;
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->trigger_tgid = current_tgid();
	record->trigger_pid = pid;
	record->trigger_cgroup_id = memcg_id(trigger);
	record->start_code = READ(mm, start_code);
	record->start_stack = READ(mm, start_stack);
	record->kernel_stack_id = kernel_stack;
	record->user_stack_id = user_stack;
	bpf_get_current_comm(record->trigger_comm, sizeof(record->trigger_comm));

	if (decision)
		describe_decision(record, decision);
	else
		infer_decision(record, ended);
	if (owner)
		describe_owner(record, owner);
	describe_victim(record, victim);
	oom_ring.ringbuf_submit(record, 0);
	return 0;
}

PROGRAM(mark_victim)
{
	struct task_struct *victim = (struct task_struct *)ctx->args[0];
	s32 kernel_stack = stacks.get_stackid(ctx, 0);
	s32 user_stack = stacks.get_stackid(ctx, BPF_F_USER_STACK);

	return emit_kill(victim, kernel_stack, user_stack);
}

static __always_inline int enter_mark_victim(struct call *call)
{
	struct task_struct *victim = (struct task_struct *)call->args[0];

	return emit_kill(victim, stacks.get_stackid(call->ctx, 0),
			 stacks.get_stackid(call->ctx, BPF_F_USER_STACK));
}

/* oom_badness() also serves /proc/PID/oom_score: only calls inside a decision count. */
static __always_inline int enter_badness(struct call *call)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct decision *decision = decisions.lookup(&pid);

	if (decision)
		decision->weighed = (struct task_struct *)call->args[0];
	return 0;
}

static __always_inline void describe_candidate(struct candidate_event *record,
					       struct task_struct *task)
{
	struct mm_struct *mm = READ(task, mm);

	record->cgroup_id = memcg_id(task_memcg(task));
	record->tgid = READ(task, tgid);
	record->pid = READ(task, pid);
	record->oom_score_adj = READ(READ(task, signal), oom_score_adj);
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), &task->comm);
	DESCRIBE_MM(record, mm);
}

static __always_inline int leave_badness(struct call *call)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct decision *decision = decisions.lookup(&pid);

	if (!decision || !decision->weighed)
		return 0;

	struct candidate_event *record =
		or_count_lost(candidate_ring.ringbuf_reserve(sizeof(*record)), STREAM_CANDIDATE);

	if (!record)
		return 0;
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->invocation = decision->time_ns;
	record->total_pages = READ(decision->control, totalpages);
	record->badness = call->result;
	record->trigger_pid = pid;
	describe_candidate(record, decision->weighed);
	decision->weighed = NULL;

	u64 waiting = candidate_ring.ringbuf_query(BPF_RB_AVAIL_DATA);

	candidate_ring.ringbuf_submit(record, wake_flag(waiting > CANDIDATE_WAKE_BYTES));
	return 0;
}
