/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The accounts of the ledger: one for each traced memcg, from the time at which it is first traced
 * to the release of the memcg. A removed cgroup keeps its account while memory is charged to it.
 *
 * `seen` holds, for each account and CPU, the values of the counters that the ledger has accounted
 * for. Only programs on that CPU use them, and no two of these run at the same time (charge.bpf.c).
 * The exceptions are the time in which no task can be in the cgroup (`prime`, `close_account`), and
 * CPUs that are offline.
 */
#ifndef MEMCG_TRACER_ACCOUNTS_H
#define MEMCG_TRACER_ACCOUNTS_H

#include "../categories.h"
#include "tracked.h"

struct account {
	struct mem_cgroup *memcg; /* NULL: the slot is free */
	u64 cgroup_id;
	u64 serial; /* css.serial_nr, which no two memcgs share */
	u64 stats; /* mem_cgroup.vmstats_percpu */
	u32 root_changes; /* changes of `roots` after which it was still traced */
	u32 has_ended; /* the memcg was released, or is not traced any more */
	u64 parent_id; /* of the cgroup above; 0 = none */
	u64 is_offline; /* its cgroup was removed, and the kernel has passed memory to the parent */
};

BPF_ARRAY(accounts, struct account, TRACER_ACCOUNTS); /* by slot; slot 0 is not used */
BPF_STACK(free_slots, u32, TRACER_ACCOUNTS); /* user space fills it */
BPF_QUEUE(ended_slots, u32, TRACER_ACCOUNTS);
BPF_QUEUE(offline_slots, u32, TRACER_ACCOUNTS);
BPF_HASH(slot_of, u64, u32, TRACER_ACCOUNTS); /* cgroup id -> slot */

/* Counters of one CPU, by category, in the kernel's units. */
struct category_values {
	s64 values[CATEGORY_COUNT];
};

BPF_ARRAY(seen, struct category_values, TRACER_ACCOUNTS *TRACER_CPUS);

/* By slot: the sum of the counters of all CPUs when the account was opened. */
BPF_ARRAY(primed, struct category_values, TRACER_ACCOUNTS);

struct ledger {
	u64 opened; /* accounts since the recording began */
	u64 ended; /* of these, accounts that were put into `ended_slots` */
	u64 removed_ns; /* when a traced cgroup was last removed */
	u64 is_full; /* a memcg found no room */
	u64 offline; /* accounts that were put into `offline_slots` */
};

BPF_ARRAY(ledger, struct ledger, 1);

static __always_inline struct ledger *the_ledger(void)
{
	u32 zero = 0;

	return ledger.lookup(&zero);
}

static __always_inline struct category_values *seen_of(u32 slot, u32 cpu)
{
	u32 place = slot * TRACER_CPUS + cpu;

	return seen.lookup(&place);
}

/* The counters of a CPU from the first position that calibration learnt. */
struct cpu_counters {
	s64 values[TRACER_STATE_ITEMS];
};

#ifndef LOAD_AT
BPF_PERCPU_ARRAY(copied_counters, struct cpu_counters, 1);
#endif

/*
 * Find the counters of a CPU (cpu_stats); NULL if their place is not known. Those that cannot be
 * read are 0. Without LOAD_AT they are copied, since that takes one call of a helper.
 */
static __always_inline struct cpu_counters *find_counters(struct calibration *known, u64 stats)
{
	u64 from = stats + offsetof(struct memcg_vmstats_percpu, state) + known->span_offset;

	if (!stats)
		return NULL;
#ifdef LOAD_AT
	return (struct cpu_counters *)from;
#else
	u32 zero = 0;
	u32 bytes = known->span_bytes;
	struct cpu_counters *copy = copied_counters.lookup(&zero);

	if (!copy || bytes > sizeof(*copy))
		return NULL;
	bpf_probe_read_kernel(copy->values, bytes, (const void *)from);
	return copy;
#endif
}

/* Return a counter of a CPU; 0 if its position is not known. */
static __always_inline s64 value_of(struct cpu_counters *now, struct calibration *known,
				    u32 category)
{
	struct position *at = &known->positions[category];

#ifdef LOAD_AT
	return LOAD_AT(u64, ((u64)now + at->offset_bytes) & at->mask);
#else
	return now->values[at->offset_bytes / sizeof(s64) & (TRACER_STATE_ITEMS - 1)] & at->mask;
#endif
}

/*
 * Return whether an account's memcg exists. If it does, everything that was read from it before is
 * valid: css_free_rwork_fn() in kernel/cgroup/cgroup.c clears refcnt.data before it frees the
 * memcg.
 */
static __always_inline bool exists(struct account *account)
{
	return READ(account->memcg, css.serial_nr) == account->serial &&
	       READ(account->memcg, css.data);
}

/*
 * Return whether an account's memcg was released, and maybe freed: nothing is charged to it any
 * more, and its counters do not change.
 */
static __always_inline bool is_released(struct account *account)
{
	bool is_released = READ(account->memcg, css.flags) & KERNEL_ENUM_CSS_RELEASED;

	return is_released | (READ(account->memcg, css.serial_nr) != account->serial);
}

/*
 * Return whether an account's cgroup was removed and has passed memory to its parent: css_offline()
 * comes before the flag is cleared (offline_css in kernel/cgroup/cgroup.c).
 */
static __always_inline bool is_offline(struct account *account)
{
	bool is_online = READ(account->memcg, css.flags) & KERNEL_ENUM_CSS_ONLINE;

	return !is_online | (READ(account->memcg, css.serial_nr) != account->serial);
}

/* Return the slot of a new account; 0 if there is no room. The caller publishes it. */
static __always_inline u32 new_account(struct mem_cgroup *memcg, u64 id)
{
	u32 slot = 0;
	struct ledger *head = the_ledger();
	struct account *account;

	if (!head || free_slots.pop(&slot)) {
		count_lost(STREAM_RESIDUE);
		if (head)
			head->is_full = 1;
		return 0;
	}
	__sync_fetch_and_add(&head->opened, 1);
	account = accounts.lookup(&slot);

	struct category_values *primed_values = primed.lookup(&slot);

	if (!account || !primed_values)
		return 0;
	CLEAR(primed_values);
	account->cgroup_id = id;
	account->serial = READ(memcg, css.serial_nr);
	account->stats = (u64)READ(memcg, vmstats_percpu);
	account->root_changes = root_changes() - 1; /* `roots` may have changed just now */
	account->has_ended = 0;
	account->is_offline = 0;
	account->parent_id = memcg_id(memcg_parent(memcg));
	account->memcg = memcg;
	return slot;
}

/* Make an account known. Return its slot, or the slot of the cgroup's account if it has one. */
static __always_inline u32 publish(u64 id, u32 slot)
{
	struct account *account = accounts.lookup(&slot);
	u32 *other;

	if (!slot || !account)
		return 0;
	if (!slot_of.insert(&id, &slot))
		return slot;
	account->memcg = NULL;
	free_slots.push(&slot, 0);
	other = slot_of.lookup(&id);
	return other ? *other : 0;
}

/*
 * Return the slot of the account of a traced memcg; 0 if it has no account. A memcg without an
 * account is new if all that existed before the recording have theirs: its counters began at zero,
 * like `seen`.
 */
static __always_inline u32 slot_for(struct mem_cgroup *memcg, u64 id)
{
	struct calibration *known = calibrated();
	u32 *slot = slot_of.lookup(&id);

	if (slot)
		return *slot;
	return known && known->is_primed ? publish(id, new_account(memcg, id)) : 0;
}

#endif
