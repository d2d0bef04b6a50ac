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

/* A thread that kills, and the progress of its levels. */
struct levelling {
	struct mem_cgroup *owner; /* NULL: the kill is for the shortage of the machine */
	u64 invocation; /* the decision that was already levelled; 0 = not known */
	u32 slot;
};

BPF_TABLE("lru_hash", u32, struct levelling, levellings, 1024); /* by thread id */
BPF_PROG_ARRAY(next_levels, 1); /* `kill_levels` itself; user space fills it */

static __always_inline bool is_at_or_below(struct mem_cgroup *memcg, struct mem_cgroup *owner)
{
	bool is_found = !owner;

	for (int depth = 0; depth < MAX_DEPTH && memcg; depth++) {
		is_found |= memcg == owner;
		memcg = memcg_parent(memcg);
	}
	return is_found;
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

/* Level some accounts. Return whether there are more. */
static __always_inline bool level_some(struct levelling *at)
{
	struct ledger *head = the_ledger();
	u32 tgid = current_tgid();
	u64 end = head ? head->opened + 1 : 0;

#pragma clang loop unroll(disable)
	for (u32 count = 0; count < SLOTS_A_RUN; count++) {
		u32 slot = at->slot;
		struct account *account = accounts.lookup(&slot);

		if (!account || slot >= end)
			return false;
		at->slot = slot + 1;
		if (account->memcg && !account->has_ended &&
		    is_at_or_below(account->memcg, at->owner))
			send_level(account, slot, tgid);
	}
	return true;
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
	};
	struct levelling *before = levellings.lookup(&pid);

	if (before && begin.invocation && before->invocation == begin.invocation)
		return NULL;
	levellings.update(&pid, &begin);
	return levellings.lookup(&pid);
}

/*
 * Level the accounts at mark_victim, once for a decision. The program calls itself to continue, as
 * often as the kernel permits (33 times): further accounts keep what the ledger has seen.
 */
PROGRAM(kill_levels)
{
	u32 pid = bpf_get_current_pid_tgid();
	struct slice *slice = this_slice();
	struct levelling *at = levellings.lookup(&pid);
	bool has_more;

	if (!at || !at->slot)
		at = begin_levels(pid);
	if (!at || !slice)
		return 0;
	if (!claim(slice)) { /* the copy of the counters is in use */
		at->slot = 0;
		return 0;
	}
	has_more = level_some(at);
	release(slice);
	if (has_more)
		next_levels.call(ctx, 0);
	at->slot = 0;
	return 0;
}
