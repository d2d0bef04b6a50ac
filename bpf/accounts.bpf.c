// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Programs that user space runs to open accounts, to look at all of them, and to close them
 * (tracer/capture/bpf/accounts.py), each with interrupts disabled, as those of charge.bpf.c.
 */

#include "shared/sums.h"
#include "shared/task_time.h"

#define LOOK_SLOTS 64

static __always_inline void end_account(struct account *account, u32 slot)
{
	struct ledger *head = the_ledger();

	if (account->has_ended || !head || ended_slots.push(&slot, 0))
		return;
	account->has_ended = 1;
	__sync_fetch_and_add(&head->ended, 1);
}

/* End the account of a memcg that was released, or whose cgroup matched a request and was refused.
 */
static __always_inline void check_account(struct account *account, u32 slot, u32 generation)
{
	account->generation = generation;
	if (is_released(account) || !memcg_info(account->memcg).follow)
		end_account(account, slot);
}

/*
 * Account for what others changed in the counters of a CPU. args: the CPU, the first slot to look
 * at, the end of the slots, and whether `sched_switch` is detached. Until then, what changes in the
 * memcg of the present task is that task's. User space runs it on that CPU, or on any if that CPU
 * is offline. Return the slot to go on with, which is the same inside another program.
 *
 * The loop only finds an account that needs more than a look: the verifier follows each turn.
 */
PROGRAM(look)
{
	u32 cpu = ctx->args[0];
	u32 slot = ctx->args[1];
	struct slice *slice = this_slice();
	struct calibration *known = calibrated();
	struct account *account = NULL;
	struct category_values *seen = NULL;
	struct cpu_counters *now = NULL;
	u32 generation = this_generation();
	u32 running = 0;
	bool is_gone = false, is_to_check = false;

	if (!slice || !known)
		return ctx->args[2];
	if (slice->is_busy)
		return slot;
	add_task_time(slice);
	if (slice->is_running && !ctx->args[3])
		running = slice->slot;
	for (u32 count = 0; count < LOOK_SLOTS; count++, slot++) {
		if (slot >= ctx->args[2])
			return slot;
		account = accounts.lookup(&slot);
		seen = seen_of(slot, cpu);
		if (!account || !seen)
			return ctx->args[2];
		if (slot == running || !account->memcg || account->has_ended)
			continue;
		is_gone = is_released(account);
		is_to_check = is_gone | (account->generation != generation);
		now = find_counters(known, cpu_stats(account->stats, cpu));
		if (is_to_check || (now && differs(now, known, seen)))
			break;
	}
	if (slot == ctx->args[1] + LOOK_SLOTS || !account || !seen)
		return slot;
	if (is_to_check) {
		check_account(account, slot, generation);
		return is_gone || account->has_ended ? slot + 1 : slot;
	}
	if (now && exists(account))
		add_differences(slice, account, now, known, seen, 0);
	return slot + 1;
}

#define SLOTS_AT_ONCE 64

_Static_assert(TRACER_ACCOUNTS % SLOTS_AT_ONCE == 0, "whole runs");

/*
 * Make slots free, which are used from the last one made. args: the end of the slots. Return the
 * end of those that are left.
 */
PROGRAM(free_some_slots)
{
	for (u32 count = 1; count <= SLOTS_AT_ONCE; count++) {
		u32 slot = ctx->args[0] - count;

		if (slot)
			free_slots.push(&slot, 0);
	}
	return ctx->args[0] - SLOTS_AT_ONCE;
}

/*
 * Open the account of a memcg that exists, and make its present counters the zero of the ledger.
 * args: its address and the id of its cgroup. Its tasks are not accounted for until `publish`.
 * Return whether to run it again, since it interrupted another program of the ledger.
 */
PROGRAM(prime)
{
	struct mem_cgroup *memcg = (struct mem_cgroup *)ctx->args[0];
	u64 id = ctx->args[1];
	struct slice *slice = this_slice();
	struct calibration *known = calibrated();
	u32 slot;
	struct account *account;

	if (!slice || slice->is_busy)
		return 1;
	if (!known || memcg_id(memcg) != id)
		return 0;
	if (slot_of.lookup(&id)) /* it was traced from the beginning */
		return 0;
	slot = new_account(memcg, id);
	account = accounts.lookup(&slot);
	if (!slot || !account)
		return 0;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		struct category_values *seen = seen_of(slot, cpu);
		struct cpu_counters *now = find_counters(known, cpu_stats(account->stats, cpu));

		if (!seen || !now)
			continue;
#pragma clang loop unroll(disable)
		for (u32 category = 0; category < CATEGORY_COUNT; category++)
			seen->values[category] = value_of(now, known, category);
	}
	publish(id, slot);
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
 * Close an account that has ended, and put what it lacked into `closed`. The counters are read if
 * they still exist; after that, counters that are not zero at the release are taken to be as they
 * were last seen. Return whether to run it again, as `prime` does.
 */
PROGRAM(close_account)
{
	u32 zero = 0;
	u32 slot = 0;
	struct closed_account *out = closed.lookup(&zero);
	struct slice *slice = this_slice();
	struct calibration *known = calibrated();
	struct account *account;

	if (!slice || slice->is_busy)
		return 1;
	if (!out || !known)
		return 0;
	CLEAR(out);
	ended_slots.pop(&slot);
	account = accounts.lookup(&slot);
	if (!slot || !account)
		return 0;
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
			if (are_valid || is_zero_at_release(category))
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
	return 0;
}
