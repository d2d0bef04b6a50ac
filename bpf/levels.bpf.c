// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The ledger at an OOM kill. A task that reclaims from other cgroups changes their counters at
 * once, and the ledger when `look` finds the change. So at a kill the counters of each account
 * below the limit owner are added up, on all CPUs. User space moves the changes that the ledger had
 * not seen to the time of the kill (tracer/capture/charge_records.py).
 */

#include "shared/decisions.h"
#include "shared/sums.h"

#define MOST_SLOTS_A_RUN 64
#define CPUS_A_RUN 256 /* for each run, the verifier follows so many turns of the inner loop */
#define SLOTS_A_RUN                                                     \
	(CPUS_A_RUN / TRACER_CPUS > MOST_SLOTS_A_RUN ? MOST_SLOTS_A_RUN \
						     : CPUS_A_RUN / TRACER_CPUS + 1)

/*
 * A thread that kills, and the progress of its levels. With an owner, the memcgs at and below it
 * are visited; without one, the kill is for the shortage of the machine, and all accounts are.
 */
struct levelling {
	struct mem_cgroup *owner;
	struct mem_cgroup *next; /* to be visited; NULL: none is left */
	u64 invocation; /* the decision that was already levelled; 0 = not known */
	u32 slot; /* without an owner: the account to be visited */
	u32 is_under_way;
	u32 visited;
	u32 levelled;
};

BPF_TABLE("lru_hash", u32, struct levelling, levellings, 1024); /* by thread id */
BPF_PROG_ARRAY(next_levels, 1); /* `kill_levels` itself; user space fills it */

static __always_inline u64 children_of(struct mem_cgroup *memcg)
{
	return (u64)memcg + offsetof(struct mem_cgroup, css) +
	       offsetof(struct cgroup_subsys_state, children);
}

/*
 * Return the memcg that follows in pre-order below `top`, as css_next_descendant_pre() does
 * (kernel/cgroup/cgroup.c); NULL after the last. A removed cgroup stays in the list of its parent
 * until its memcg is released.
 */
static __always_inline struct mem_cgroup *next_below(struct mem_cgroup *memcg,
						     struct mem_cgroup *top)
{
	u64 next = (u64)READ(memcg, css.children.next);

	if (next == children_of(memcg))
		next = 0;
	for (int depth = 0; depth < MAX_DEPTH && !next && memcg != top; depth++) {
		struct mem_cgroup *parent = memcg_parent(memcg);

		next = (u64)READ(memcg, css.sibling.next);
		if (next == children_of(parent))
			next = 0;
		memcg = parent;
	}
	return next ? memcg_from_css((void *)(next - offsetof(struct cgroup_subsys_state, sibling)))
		    : NULL;
}

/*
 * Send what was charged to an account since it was opened, in a record without updates that has the
 * trigger's tgid.
 */
static __always_inline void send_level(struct account *account, u32 slot, u32 tgid)
{
	struct calibration *known = calibrated();
	struct category_values *primed_values = primed.lookup(&slot);
	struct charge_event *record = charge_ring.ringbuf_reserve(sizeof(*record));

	if (!record) {
		count_lost(STREAM_CHARGE);
		return;
	}
	CLEAR(record);
	if (!known || !primed_values) {
		charge_ring.ringbuf_discard(record, 0);
		return;
	}
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		struct cpu_counters *now = find_counters(known, cpu_stats(account->stats, cpu));

		if (!now)
			continue;
#pragma unroll
		for (u32 category = 0; category < CATEGORY_COUNT; category++)
			record->delta_bytes[category] += value_of(now, known, category);
	}
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		record->delta_bytes[category] =
			(record->delta_bytes[category] - primed_values->values[category]) *
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

/* Return the slot of the account to be levelled next, and advance; 0: the memcg has no account. */
static __always_inline u32 next_slot(struct levelling *at)
{
	u64 id;
	u32 *slot;

	if (!at->owner)
		return at->slot++;
	id = memcg_id(at->next);
	slot = slot_of.lookup(&id);
	at->next = next_below(at->next, at->owner);
	return slot ? *slot : 0;
}

/* Level some accounts. Return whether there are more. */
static __always_inline bool level_some(struct levelling *at)
{
	struct ledger *head = the_ledger();
	u32 tgid = current_tgid();
	u64 end = head ? head->opened + 1 : 0;

#pragma clang loop unroll(disable)
	for (u32 count = 0; count < SLOTS_A_RUN; count++) {
		u32 slot;
		struct account *account;

		if (at->owner ? !at->next : at->slot >= end)
			return false;
		slot = next_slot(at);
		account = accounts.lookup(&slot);
		at->visited++;
		if (!account)
			return false;
		if (account->memcg && !account->has_ended) {
			send_level(account, slot, tgid);
			at->levelled++;
		}
	}
	return true;
}

/*
 * Count the accounts at and below the owner that were not levelled: not more than the accounts that
 * are left, nor than the memcgs that were not visited.
 */
static __always_inline void count_lost_levels(struct levelling *at)
{
	struct ledger *head = the_ledger();
	u64 left = head ? head->opened - head->ended - at->levelled : 0;
	struct cgroup *cgroup = READ(at->owner, css.cgroup);
	u64 not_visited =
		1 + READ(cgroup, nr_descendants) + READ(cgroup, nr_dying_descendants) - at->visited;

	if (at->owner && not_visited < left)
		left = not_visited;
	if ((s64)left > 0)
		count_lost_records(STREAM_CHARGE, left);
}

/* Begin with a kill, unless its decision was levelled for another victim. */
static __always_inline struct levelling *begin_levels(u32 pid)
{
	struct decision *decision = decisions.lookup(&pid);
	struct ended *ended = last_ended.lookup(&pid);
	struct levelling begin = {
		.owner = kill_owner(decision, ended, charged_memcg(current_task())),
		.invocation = decision ? decision->time_ns : 0,
		.slot = 1,
		.is_under_way = 1,
	};
	struct levelling *before = levellings.lookup(&pid);

	if (before && begin.invocation && before->invocation == begin.invocation)
		return NULL;
	begin.next = begin.owner;
	levellings.update(&pid, &begin);
	return levellings.lookup(&pid);
}

/*
 * Level the accounts at mark_victim, once for a decision. The program calls itself to continue, as
 * often as the kernel permits (33 times): further accounts keep what the ledger has seen, and are
 * counted as lost.
 */
PROGRAM(kill_levels)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct slice *slice = this_slice();
	struct levelling *at = levellings.lookup(&pid);
	bool has_more = true;

	if (!at || !at->is_under_way)
		at = begin_levels(pid);
	if (!at || !slice)
		return 0;
	if (claim(slice)) { /* otherwise the copy of the counters is in use */
		has_more = level_some(at);
		release(slice);
		if (has_more)
			next_levels.call(ctx, 0);
	}
	at->is_under_way = 0;
	if (has_more)
		count_lost_levels(at);
	return 0;
}
