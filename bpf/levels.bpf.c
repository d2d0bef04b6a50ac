// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The ledger at an OOM kill. A task that reclaims from other cgroups changes their counters at
 * once, and the ledger when `look` finds the change. So at a kill the counters of each account
 * below the limit owner are added up, on all CPUs. User space moves the changes that the ledger had
 * not seen to the time of the kill (tracer/capture/charge_records.py).
 */

#include "shared/decisions.h"
#include "shared/sums.h"

/*
 * The task whose allocation failed waits for the levels: at most so many accounts, and so many
 * readings of the counters of a CPU.
 */
#define MOST_LEVELS 2176
#define MOST_READINGS 16384
#define LEVELS_A_KILL \
	(MOST_READINGS / TRACER_CPUS > MOST_LEVELS ? MOST_LEVELS : MOST_READINGS / TRACER_CPUS + 1)

/* A thread that kills -> the decision that was levelled last; 0 = not known. */
BPF_TABLE("lru_hash", u32, u64, levellings, 1024);

/*
 * The progress of the levels. With an owner, the memcgs at and below it are visited; without one,
 * the kill is for the shortage of the machine, and all accounts are.
 */
struct levelling {
	struct mem_cgroup *owner;
	struct mem_cgroup *at;
	u64 is_climbing; /* everything below `at` was visited */
	u32 slot; /* without an owner: the account to be visited */
	u32 tgid;
	u32 visited;
	u32 levelled;
	u64 is_complete;
};

static __always_inline u64 children_of(struct mem_cgroup *memcg)
{
	return (u64)memcg + offsetof(struct mem_cgroup, css) +
	       offsetof(struct cgroup_subsys_state, children);
}

/*
 * Go one step of the walk in pre-order, as css_next_descendant_pre() does (kernel/cgroup/cgroup.c):
 * to the first child, to the next sibling, or up. Return whether the walk is over. A removed cgroup
 * stays in the list of its parent until its memcg is released.
 */
static __always_inline bool step(struct levelling *walk)
{
	struct mem_cgroup *at = walk->at, *parent;
	u64 next = (u64)READ(at, css.children.next);

	if (walk->is_climbing || next == children_of(at)) {
		if (at == walk->owner)
			return true;
		parent = memcg_parent(at);
		next = (u64)READ(at, css.sibling.next);
		if (next == children_of(parent)) {
			walk->at = parent;
			walk->is_climbing = true;
			return !parent;
		}
	}
	if (!next)
		return true;
	walk->at = memcg_from_css((void *)(next - offsetof(struct cgroup_subsys_state, sibling)));
	walk->is_climbing = false;
	return false;
}

/* The counters of an account on all CPUs, in the kernel's units. */
struct all_cpus {
	u64 stats; /* mem_cgroup.vmstats_percpu */
	struct category_values sums;
};

SUBPROGRAM(add_counters_of_cpu)
{
	struct all_cpus *all = (struct all_cpus *)SECOND_ARGUMENT;
	struct calibration *known = calibrated();
	struct cpu_counters *now =
		known ? find_counters(known, cpu_stats(all->stats, FIRST_ARGUMENT)) : NULL;

	if (!now)
		return 0;
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		all->sums.values[category] += value_of(now, known, category);
	return 0;
}

/*
 * Send what was charged to an account since it was opened, in a record without updates that has the
 * trigger's tgid.
 */
static __always_inline void send_level(struct account *account, u32 slot, u32 tgid)
{
	struct category_values *primed_values = primed.lookup(&slot);
	struct all_cpus all = {.stats = account->stats};
	struct charge_event *record;

	if (!primed_values)
		return;
	LOOP(add_counters_of_cpu, TRACER_CPUS, &all);
	record = or_count_lost(charge_ring.ringbuf_reserve(sizeof(*record)), STREAM_CHARGE);
	if (!record)
		return;
	CLEAR(record);
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		record->delta_bytes[category] =
			(all.sums.values[category] - primed_values->values[category]) *
			unit_bytes(category);

	struct counter counter = read_counter(&account->memcg->memory);

	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = account->cgroup_id;
	record->usage_pages = counter.usage_pages;
	record->limit_pages = counter.limit_pages;
	record->tgid = tgid;
	if (!exists(account)) {
		charge_ring.ringbuf_discard(record, 0);
		return;
	}
	charge_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* Return the slot of the account of the memcg where the walk is; 0: it has none. */
static __always_inline u32 slot_here(struct levelling *walk)
{
	u64 id = memcg_id(walk->at);
	u32 *slot = slot_of.lookup(&id);

	return slot ? *slot : 0;
}

/* Visit a memcg or an account, and go on. Return 1 at the end. */
SUBPROGRAM(level_next)
{
	struct levelling *walk = (struct levelling *)SECOND_ARGUMENT;
	struct ledger *head = the_ledger();
	struct account *account;
	u32 slot;

	if (!walk->is_climbing) {
		if (walk->visited == LEVELS_A_KILL)
			return 1;
		walk->visited++;
		slot = walk->owner ? slot_here(walk) : walk->slot++;
		account = accounts.lookup(&slot);
		if (account && account->memcg && !account->has_ended) {
			send_level(account, slot, walk->tgid);
			walk->levelled++;
		}
	}
	walk->is_complete = walk->owner ? step(walk) : !head || walk->slot > head->opened;
	return walk->is_complete ? 1 : 0;
}

/*
 * Count the accounts at and below the owner that were not levelled: not more than the accounts that
 * are left, nor than the memcgs that were not visited.
 */
static __always_inline void count_lost_levels(struct levelling *walk)
{
	struct ledger *head = the_ledger();
	u64 left = head ? head->opened - head->ended - walk->levelled : 0;
	struct cgroup *cgroup = READ(walk->owner, css.cgroup);
	u64 not_visited = 1 + READ(cgroup, nr_descendants) + READ(cgroup, nr_dying_descendants) -
			  walk->visited;

	if (walk->owner && not_visited < left)
		left = not_visited;
	if ((s64)left > 0)
		count_lost_records(STREAM_CHARGE, left);
}

/*
 * Level the accounts at mark_victim, once for a decision. Accounts beyond LEVELS_A_KILL keep what
 * the ledger has seen, and are counted as lost.
 */
PROGRAM(kill_levels)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct slice *slice = this_slice();
	struct decision *decision = decisions.lookup(&pid);
	struct ended *ended = last_ended.lookup(&pid);
	u64 invocation = decision ? decision->time_ns : 0;
	u64 *before = levellings.lookup(&pid);

	if (!slice || (before && invocation && *before == invocation))
		return 0;
	levellings.update(&pid, &invocation);

	struct levelling walk = {
		.owner = kill_owner(decision, ended, charged_memcg(current_task())),
		.slot = 1,
		.tgid = current_tgid(),
	};

	walk.at = walk.owner;
	if (claim(slice)) { /* otherwise the copy of the counters is in use */
		LOOP(level_next, 2 * LEVELS_A_KILL, &walk);
		release(slice);
	}
	if (!walk.is_complete)
		count_lost_levels(&walk);
	return 0;
}
