// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Programs that user space runs to open accounts, to look at all of them, and to close them
 * (tracer/capture/bpf/accounts.py). Each claims the sums of its CPU first (charge.bpf.c).
 */

#include "shared/sums.h"
#include "shared/task_time.h"

/* Accounts that one run of `look` examines: interrupts are disabled on another CPU meanwhile. */
#define LOOK_SLOTS 2112

static __always_inline void end_account(struct account *account, u32 slot)
{
	struct ledger *head = the_ledger();

	if (account->has_ended || !head || ended_slots.push(&slot, 0))
		return;
	account->has_ended = 1;
	__sync_fetch_and_add(&head->ended, 1);
}

/* Let user space know once that the cgroup of an account is offline. */
static __always_inline void note_offline(struct account *account, u32 slot)
{
	struct ledger *head = the_ledger();

	if (account->is_offline || !head || offline_slots.push(&slot, 0))
		return;
	account->is_offline = 1;
	__sync_fetch_and_add(&head->offline, 1);
}

/* End the account of a memcg that was released, or that is not traced any more. */
static __always_inline void check_account(struct account *account, u32 slot, u32 changes)
{
	account->root_changes = changes;
	if (is_released(account) || !memcg_info(account->memcg).follow)
		end_account(account, slot);
}

/* A look at the accounts of a CPU, as it proceeds. */
struct look {
	u32 cpu;
	u32 slot; /* the next to be examined */
	u32 end;
	u32 running; /* the slot of the task that runs there; 0: not known */
};

/* Account for the changes that others made to the counters of an account. */
SUBPROGRAM(look_at_next)
{
	struct look *look = (struct look *)SECOND_ARGUMENT;
	struct slice *slice = this_slice();
	struct calibration *known = calibrated();
	u32 slot = look->slot;
	struct account *account = accounts.lookup(&slot);
	struct category_values *seen = seen_of(slot, look->cpu);
	u32 changes = root_changes();
	struct cpu_counters *now;

	if (slot >= look->end)
		return 1;
	if (!slice || !known || !account || !seen) {
		look->slot = look->end;
		return 1;
	}
	look->slot++;
	if (slot == look->running || !account->memcg || account->has_ended)
		return 0;
	now = find_counters(known, cpu_stats(account->stats, look->cpu));
	if (!account->is_offline && is_offline(account))
		note_offline(account, slot);
	if (is_released(account)) {
		check_account(account, slot, changes);
		return 0;
	}
	if (account->root_changes != changes) {
		check_account(account, slot, changes);
		if (account->has_ended)
			return 0;
	}
	if (now && differs(now, known, seen))
		CALL(add_changes, (u64)look->cpu << 32 | slot, 0);
	return 0;
}

/*
 * Look at the accounts of a CPU. args: the CPU, the first slot, the end of the slots, and whether
 * `sched_switch` is detached. Until it is, a change in the memcg of the present task belongs to
 * that task. User space runs the program on that CPU, or on any CPU if that one is offline. Return
 * the slot at which to continue: it does not advance inside a program that has claimed the sums.
 *
 * A run examines many accounts: running a program on another CPU takes an interrupt there and a
 * wait here, ten times as long as the program.
 */
PROGRAM(look)
{
	struct slice *slice = this_slice();
	struct look look = {
		.cpu = ctx->args[0],
		.slot = ctx->args[1],
		.end = ctx->args[2],
	};

	if (!slice || !claim(slice))
		return look.slot;
	add_task_time(slice);
	if (slice->is_running && !ctx->args[3])
		look.running = slice->slot;
	LOOP(look_at_next, LOOK_SLOTS, &look);
	release(slice);
	return look.slot;
}

SUBPROGRAM(free_slot)
{
	u32 *slot = (u32 *)SECOND_ARGUMENT;

	free_slots.push(slot, 0);
	--*slot;
	return 0;
}

/* Put all slots on the stack of free ones, the highest first. args: the last slot. */
PROGRAM(free_all_slots)
{
	u32 slot = ctx->args[0];

	LOOP(free_slot, slot, &slot);
	return 0;
}

/* Its tasks are not accounted for until `publish`. */
static __always_inline void prime_account(struct mem_cgroup *memcg, u64 id)
{
	struct calibration *known = calibrated();
	u32 slot;
	struct account *account;

	if (!known || memcg_id(memcg) != id)
		return;
	if (slot_of.lookup(&id)) /* it was traced from the beginning */
		return;
	slot = new_account(memcg, id);
	account = accounts.lookup(&slot);

	struct category_values *primed_values = primed.lookup(&slot);

	if (!slot || !account || !primed_values)
		return;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		struct category_values *seen = seen_of(slot, cpu);
		struct cpu_counters *now = find_counters(known, cpu_stats(account->stats, cpu));

		if (!seen || !now)
			continue;
#pragma clang loop unroll(disable)
		for (u32 category = 0; category < CATEGORY_COUNT; category++) {
			seen->values[category] = value_of(now, known, category);
			primed_values->values[category] += seen->values[category];
		}
	}
	publish(id, slot);
}

/*
 * Open the account of a memcg that exists, and make its present counters the zero of the ledger.
 * args: its address and the id of its cgroup. Return whether to run it again, since it interrupted
 * another program of the ledger.
 */
PROGRAM(prime)
{
	struct slice *slice = this_slice();

	if (!slice || !claim(slice))
		return 1;
	prime_account((struct mem_cgroup *)ctx->args[0], ctx->args[1]);
	release(slice);
	return 0;
}

/* What an account lacked when its memcg was released, in bytes by category, and its CPU time. */
struct closed_account {
	u64 cgroup_id;
	u64 slot;
	u64 cpu_ns;
	s64 delta_bytes[CATEGORY_COUNT];
};

BPF_ARRAY(closed, struct closed_account, 1);

/*
 * Return whether a counter is zero once its memcg is released, because each unit of it holds a
 * reference to the memcg. Kernel memory, and all folios since v7.1 (MEMCG_DATA_IS_OBJCG), pass to
 * the parent when the cgroup is removed, and the counters keep what was charged until then.
 */
static __always_inline bool is_zero_at_release(u32 category)
{
	switch (category) {
	case CATEGORY_ANON:
	case CATEGORY_FILE:
	case CATEGORY_SHMEM:
		return !MEMCG_DATA_IS_OBJCG;
	case CATEGORY_SWAP:
	case CATEGORY_SOCK:
		return true;
	}
	return false;
}

/*
 * Return whether a counter is zero when its memcg is freed: also if the kernel has moved what it
 * held to the parent's counter (slab_counters_pass_to_parent in tracer/kernel/struct_header.py).
 */
static __always_inline bool is_zero_when_freed(u32 category)
{
#ifdef SLAB_COUNTERS_PASS_TO_PARENT
	if (category == CATEGORY_SLAB_RECLAIMABLE || category == CATEGORY_SLAB_UNRECLAIMABLE)
		return true;
#endif
	return is_zero_at_release(category);
}

/*
 * Close an account that has ended, and put what it lacked into `closed`. If the memcg does not
 * exist any more, counters that are zero by then count as zero, and others as last seen.
 */
static __always_inline void close_next(void)
{
	u32 zero = 0;
	u32 slot = 0;
	struct closed_account *out = closed.lookup(&zero);
	struct calibration *known = calibrated();
	struct account *account;

	if (!out || !known)
		return;
	CLEAR(out);
	ended_slots.pop(&slot);
	account = accounts.lookup(&slot);
	if (!slot || !account)
		return;
	out->cgroup_id = account->cgroup_id;
	out->slot = slot;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		struct cpu_counters *now = find_counters(known, cpu_stats(account->stats, cpu));

		if (!now)
			continue;
#pragma clang loop unroll(disable)
		for (u32 category = 0; category < CATEGORY_COUNT; category++)
			out->delta_bytes[category] += value_of(now, known, category);
	}

	bool are_valid = exists(account);

	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		struct category_values *seen = seen_of(slot, cpu);
		u64 *time = task_time_of(slot, cpu);

		if (!seen || !time)
			continue;
		out->cpu_ns += *time;
		*time = 0;
#pragma clang loop unroll(disable)
		for (u32 category = 0; category < CATEGORY_COUNT; category++) {
			if (!are_valid && !cpu)
				out->delta_bytes[category] = 0;
			if (are_valid || is_zero_when_freed(category))
				out->delta_bytes[category] -= seen->values[category];
			seen->values[category] = 0;
		}
	}
#pragma clang loop unroll(disable)
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		out->delta_bytes[category] *= unit_bytes(category);
	slot_of.delete(&out->cgroup_id);
	account->memcg = NULL;
	free_slots.push(&slot, 0);
}

/* A cgroup that is offline, and the memory that it held when its account was opened. */
struct offline_account {
	u64 cgroup_id;
	u64 parent_id; /* 0 = the parent has no account */
	u64 has_passed[CATEGORY_COUNT]; /* the memory is the parent's from now on */
	s64 primed_bytes[CATEGORY_COUNT];
};

BPF_ARRAY(offline, struct offline_account, 1);

/*
 * Put an account whose cgroup is offline into `offline`. Since v7.1, lru_reparent_memcg() passes
 * all folios to the parent, and before that memcg_reparent_objcgs() passed kernel memory. From then
 * on the counters of the parent change, although the cgroup's counters keep what was charged to it.
 */
PROGRAM(take_offline)
{
	u32 zero = 0;
	u32 slot = 0;
	struct offline_account *out = offline.lookup(&zero);
	struct account *account;
	struct category_values *primed_values;

	if (!out)
		return 0;
	CLEAR(out);
	offline_slots.pop(&slot);
	account = accounts.lookup(&slot);
	primed_values = primed.lookup(&slot);
	if (!slot || !account || !primed_values || !account->is_offline)
		return 0;

	u64 parent_id = account->parent_id;

	out->cgroup_id = account->cgroup_id;
	out->parent_id = slot_of.lookup(&parent_id) ? parent_id : 0;
#pragma clang loop unroll(disable)
	for (u32 category = 0; category < CATEGORY_COUNT; category++) {
		out->has_passed[category] = !is_zero_at_release(category);
		out->primed_bytes[category] =
			primed_values->values[category] * unit_bytes(category);
	}
	return 0;
}

/* Close an account. Return whether to run the program again, as `prime` does. */
PROGRAM(close_account)
{
	struct slice *slice = this_slice();

	if (!slice || !claim(slice))
		return 1;
	close_next();
	release(slice);
	return 0;
}
