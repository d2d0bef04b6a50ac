// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * OOM kills. mark_victim runs once for each killed task, in the context of the task whose allocation could not be
 * served, before the victim is touched: the trigger's stacks and the owner's counters are those of the decision.
 */

BPF_RINGBUF_OUTPUT(oom_ring, OOM_RING_PAGES);
BPF_STACK_TRACE(stacks, 1024);

static __always_inline void describe_owner(struct oom_event *record, struct mem_cgroup *trigger,
					   u32 last_kind)
{
	struct owner owner = limit_owner(trigger);

	if (owner.source != TARGET_LIMIT) {
		record->constraint = last_kind == RECLAIM_DIRECT ? CONSTRAINT_GLOBAL : CONSTRAINT_UNKNOWN;
		return;
	}

	struct counter counter = read_counter(&owner.memcg->memory);
	struct list_head *children = &owner.memcg->css.children;

	record->constraint = CONSTRAINT_MEMCG;
	record->owner_cgroup_id = memcg_id(owner.memcg);
	record->owner_usage_pages = counter.usage_pages;
	record->owner_limit_pages = counter.limit_pages;
	record->owner_has_children = READ(children, next) != children;
	if (sum_counters(record->state, owner.memcg))
		record->state_items = STATE_ITEMS;

	u64 id = record->owner_cgroup_id;
	struct reclaim_counts *counts = reclaim_counts.lookup(&id);

	if (counts) {
		record->pgscan = counts->pgscan;
		record->pgsteal = counts->pgsteal;
	}
}

/* As get_mm_counter() has it for the kill line of the kernel: without per-CPU rests, and never less than 0. */
static __always_inline s64 mm_count(struct percpu_counter *counter)
{
	s64 count = READ(counter, count);

	return count < 0 ? 0 : count;
}

static __always_inline void describe_victim(struct oom_event *record, struct task_struct *victim)
{
	struct mm_struct *mm = READ(victim, mm);

	record->victim_tgid = READ(victim, tgid);
	record->victim_pid = READ(victim, pid);
	record->victim_uid = READ(READ(victim, cred), uid);
	record->oom_score_adj = READ(READ(victim, signal), oom_score_adj);
	record->victim_cgroup_id = memcg_id(task_memcg(victim));
	bpf_probe_read_kernel(record->victim_comm, sizeof(record->victim_comm), &victim->comm);
	record->anon_pages = -1;
	if (!mm)
		return;
	record->anon_pages = mm_count(&mm->rss_stat[KERNEL_ENUM_MM_ANONPAGES]);
	record->file_pages = mm_count(&mm->rss_stat[KERNEL_ENUM_MM_FILEPAGES]);
	record->shmem_pages = mm_count(&mm->rss_stat[KERNEL_ENUM_MM_SHMEMPAGES]);
	record->swap_entries = mm_count(&mm->rss_stat[KERNEL_ENUM_MM_SWAPENTS]);
	record->pgtables_bytes = READ(mm, pgtables_bytes);
	record->total_vm_pages = READ(mm, total_vm);
}

PROGRAM(mark_victim)
{
	struct task_struct *task = current_task();
	struct task_struct *victim = (struct task_struct *)ctx->args[0];
	struct mem_cgroup *trigger = charged_memcg(task);
	u32 pid = bpf_get_current_pid_tgid();
	struct ended *ended = last_ended.lookup(&pid);
	s32 kernel_stack = stacks.get_stackid(ctx, 0);
	s32 user_stack = stacks.get_stackid(ctx, BPF_F_USER_STACK);
	struct oom_event *record = oom_ring.ringbuf_reserve(sizeof(*record));

	if (!record) {
		count_lost(STREAM_OOM);
		return 0;
	}
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	/* All victims of one decision follow on the same last attempt of the same thread. */
	record->invocation = ended ? ended->time_ns : record->time_ns;
	record->gfp = ended ? ended->gfp : 0;
	record->trigger_tgid = current_tgid();
	record->trigger_pid = pid;
	record->trigger_cgroup_id = memcg_id(trigger);
	record->kernel_stack_id = kernel_stack;
	record->user_stack_id = user_stack;
	bpf_get_current_comm(record->trigger_comm, sizeof(record->trigger_comm));
	describe_owner(record, trigger, ended ? ended->kind : RECLAIM_MEMCG);
	describe_victim(record, victim);
	oom_ring.ringbuf_submit(record, 0);
	return 0;
}
