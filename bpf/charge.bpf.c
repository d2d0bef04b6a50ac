// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `charge`, the ledger: every change of a memcg's memory counters, by owner, process and
 * category.
 *
 * The memcg's own counters are exact, so the ledger is made of their differences. Each CPU has its
 * own counters of each memcg. When a task leaves the CPU, the difference of its memcg's counters on
 * that CPU since the task came in belongs to that task. The difference includes interrupts that ran
 * meanwhile. A difference that is found when a task comes in belongs to no known process (tgid 0):
 * others reclaimed from the memcg, or freed its memory. User space runs `tick` on a CPU to cut a
 * long slice, and `look` (accounts.bpf.c) to find the changes that others made.
 *
 * The programs run with interrupts disabled: at a context switch, or in an interrupt, such as the
 * one that user space sends to a CPU (BPF_PROG_TEST_RUN). So no two of them run on one CPU at the
 * same time. But `cgroup_attach_task` can be interrupted, and so can what user space runs on its
 * own CPU: there the kernel sends no interrupt (bpf_prog_test_run_raw_tp in net/bpf/test_run.c).
 * Such programs `claim` the sums of the CPU, and a program that interrupts them does nothing.
 */

#include "shared/file_waits.h"
#include "shared/runs.h"
#include "shared/sums.h"
#include "shared/task_time.h"

/* Account for what changed in the counters of `slice->traced` on this CPU. */
static __always_inline void cut(struct slice *slice, u32 tgid)
{
	u32 slot = slice->slot;
	struct calibration *known = calibrated();
	struct category_values *seen = seen_of(slot, slice->cpu);
	struct cpu_counters *now = known ? find_counters(known, slice->stats) : NULL;
	struct account *account;

	if (!known || !seen || !now || !differs(now, known, seen))
		return;
	account = accounts.lookup(&slot);
	if (!account)
		return;
	/* Another memcg may have the slot, or the memory of this memcg. */
	if (account->serial != slice->traced.serial ||
	    CALL(add_changes, (u64)slice->cpu << 32 | slot, tgid)) {
		slice->traced.serial = 0;
		slice->is_running = 0;
		return;
	}
	wake_recorder();
}

/*
 * A task leaves. If it has moved, the difference of its old memcg still belongs to it. If it is not
 * the task that came in, a switch between them was not reported (ftrace does not show it either,
 * seen on 6.18). Then it is not known which process made the difference.
 */
static __always_inline void leave(struct slice *slice, struct task_struct *task)
{
	u32 tgid = LOAD(task, tgid);

	count_task_time(slice, task);
	cut(slice, tgid == slice->tgid ? tgid : 0);
}

static __always_inline bool is_same(struct memcg_key *known, struct memcg_key memcg)
{
	return known->serial == memcg.serial && known->generation == memcg.generation;
}

/* Return the place of an untraced memcg; memcgs that were made together have different places. */
static __always_inline struct memcg_key *untraced_at(struct slice *slice, u64 serial)
{
	return &slice->untraced[serial & (UNTRACED_SLOTS - 1)];
}

/* Find the account of a memcg that is not known. Return 0 if it has none. */
SUBPROGRAM(find_account)
{
	struct mem_cgroup *memcg = (struct mem_cgroup *)FIRST_ARGUMENT;
	struct memcg_key key = {.serial = READ(memcg, css.serial_nr),
				.generation = SECOND_ARGUMENT};
	struct slice *slice = this_slice();
	struct memcg_info info = memcg_info(memcg);
	u32 slot = info.follow ? slot_for(memcg, info.cgroup_id) : 0;
	u32 cpu = bpf_get_smp_processor_id();
	struct account *account = accounts.lookup(&slot);

	if (!slice)
		return 0;
	if (!slot || !account || account->serial != key.serial) {
		if (!info.follow) /* otherwise there was no room: try again */
			*untraced_at(slice, key.serial) = key;
		return 0;
	}
	add_task_time(slice);
	slice->traced = key;
	slice->slot = slot;
	slice->cpu = cpu;
	slice->stats = cpu_stats(account->stats, cpu);
	return 1;
}

/* A task comes in, or goes on. */
static __always_inline void enter(struct slice *slice, struct task_struct *task)
{
	struct cgroup_subsys_state *css = memory_css(task);
	struct memcg_key key = {.serial = css_serial(css), .generation = this_generation()};
	u32 was_running = slice->is_running;

	slice->is_running = 0;
	if (is_same(untraced_at(slice, key.serial), key))
		return;
	slice->tgid = LOAD(task, tgid);
	if (!is_same(&slice->traced, key)) {
		if (!CALL(find_account, ADDRESS(memcg_from_css(css)), key.generation))
			return;
		was_running = 0;
	}
	slice->is_running = 1;
	begin_task_time(slice, task);
	if (was_running) /* the last task of this memcg has just left */
		return;
	cut(slice, 0);
	wake_recorder_for_task();
}

/* Name the program of the task that leaves, which was seen for the first time (see_current). */
SUBPROGRAM(name_program)
{
	struct memcg_info info = memcg_info(task_memcg(current_task()));

	see_file(current_program(), &info, current_tgid());
	return 0;
}

PROGRAM(sched_switch)
{
	struct task_struct *prev = UNTRUSTED(task_struct, ctx->args[1]);
	struct task_struct *next = UNTRUSTED(task_struct, ctx->args[2]);
	struct slice *slice = this_slice();

	if (!slice || slice->is_busy)
		return 0;
	if (slice->is_running)
		leave(slice, prev);
	/* Not only if it runs: the slice does not know of a task that came unreported. */
	if (are_waits_pending())
		CALL(end_unreported, 0, 0);
	enter(slice, next);
	if (slice->is_running && LOAD_BITS(next, task_struct, in_iowait))
		CALL(end_file_wait, ADDRESS(next), 0);
	/* A task that is preempted does not wait yet, or does not wait any more. */
	if (LOAD_BITS(prev, task_struct, in_iowait) && !ctx->args[0])
		CALL(begin_file_wait, 0, 0);
	if (slice->is_unnamed) {
		slice->is_unnamed = 0;
		CALL(name_program, 0, 0);
	}
	return 0;
}

/* Account for the changes that the present task has made so far. */
SUBPROGRAM(cut_running)
{
	struct slice *slice = this_slice();

	if (!slice)
		return 0;
	if (slice->is_running)
		leave(slice, current_task());
	enter(slice, current_task());
	return 0;
}

/* A task moved, maybe the present one: what it changes from here on is in its new memcg. */
PROGRAM(cgroup_attach_task)
{
	struct slice *slice = this_slice();

	if (!slice || !claim(slice))
		return 0;
	CALL(cut_running, 0, 0);
	release(slice);
	return 0;
}

/* Send the sum that was listed last. Return 1 if there is none, or it cannot be sent. */
SUBPROGRAM(send_last_sum)
{
	struct slice *slice = this_slice();
	struct combined *sum;
	u32 slot;

	if (!slice || !slice->waiting)
		return 1;
	slot = slice->filled[(slice->waiting - 1) & (COMBINE_SLOTS - 1)];
	sum = combine.lookup(&slot);
	if (!sum || (sum->updates && !send(sum)))
		return 1;
	clear(sum);
	sum->is_listed = 0;
	slice->waiting--;
	return 0;
}

/*
 * Cut the slice of the task that runs on this CPU, if the argument is not 0, and send all waiting
 * sums and runs. `waiting` stays set if a sum cannot be sent.
 */
SUBPROGRAM(send_all)
{
	struct slice *slice = this_slice();
	u64 nothing = 0;

	if (!slice)
		return 0;
	if (FIRST_ARGUMENT)
		CALL(cut_running, 0, 0);
	send_runs();
	add_task_time(slice);
	send_wait_sums(slice);
	LOOP(send_last_sum, COMBINE_SLOTS, &nothing);
	return 0;
}

/*
 * Send all waiting sums and runs of this CPU. User space runs it on each CPU that has any
 * (BPF_PROG_TEST_RUN). args: whether `sched_switch` is detached, so that the memcg of the present
 * task is not known.
 */
PROGRAM(tick)
{
	struct slice *slice = this_slice();

	if (!slice || !claim(slice))
		return 0;
	CALL(send_all, !ctx->args[0], 0);
	release(slice);
	return 0;
}

/*
 * A timer expires on this CPU, mostly the kernel's own tick. Do every 10 ms what `tick` does. Like
 * `tick`, this runs in an interrupt. Interrupts are enabled only for soft timers (__run_hrtimer in
 * kernel/time/hrtimer.c).
 */
PROGRAM(hrtimer_expire_entry)
{
	struct slice *slice = this_slice();
	u32 now = bpf_jiffies64();

	if (!slice || now - slice->cut_ticks < TRACER_COMBINE_TICKS ||
	    LOAD((struct hrtimer *)ctx->args[0], is_soft))
		return 0;
	if (slice->is_busy)
		return 0;
	slice->cut_ticks = now;
	CALL(send_all, true, 0);
	return 0;
}
