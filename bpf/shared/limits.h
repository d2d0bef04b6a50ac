/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The limit that a charge has hit, according to the page counters. */
#ifndef MEMCG_TRACER_LIMITS_H
#define MEMCG_TRACER_LIMITS_H

#include "../events.h"
#include "kernel.h"

#define UNLIMITED_PAGES (1ULL << 44) /* PAGE_COUNTER_MAX is above it with any page size */
#define NEAR_LIMIT_PAGES 512 /* with less room, a PMD-sized folio is refused */

struct owner {
	struct mem_cgroup *memcg;
	u8 source;
};

static __always_inline u64 headroom_pages(struct page_counter *counter)
{
	struct counter value = read_counter(counter);

	return value.usage_pages >= value.limit_pages ? 0 : value.limit_pages - value.usage_pages;
}

/* Return the number of pages that can still be charged to a memcg. */
static __always_inline u64 room_pages(struct mem_cgroup *memcg)
{
	u64 room = headroom_pages(&memcg->memory);
#ifdef CGROUP_V1
	/* v1 also limits memory and swap together (memory.memsw.limit_in_bytes). */
	u64 memsw_room = headroom_pages(&memcg->memsw);

	if (memsw_room < room)
		room = memsw_room;
#endif
	return room;
}

static __always_inline bool is_above_high(struct mem_cgroup *memcg)
{
	return READ(memcg, memory.usage) > READ(memcg, memory.high);
}

/*
 * Find the memcg whose limit a charge of the current task has hit. On the way to the root, the
 * first counter without room refuses the charge. So the owner is the memcg with the least room
 * left; if several have none, the nearest of them. If all have room, it is the nearest memcg above
 * its memory.high. One loop for both would take the verifier twice as long.
 */
static __always_inline struct owner limit_owner(struct mem_cgroup *memcg)
{
	struct owner owner = {.memcg = NULL, .source = TARGET_NONE};
	struct mem_cgroup *at = memcg;
	u64 least = NEAR_LIMIT_PAGES + 1;

	for (int depth = 0; depth < MAX_DEPTH && at; depth++) {
		u64 room = room_pages(at);

		if (room < least) {
			least = room;
			owner.memcg = at;
		}
		at = memcg_parent(at);
	}
	if (owner.memcg) {
		owner.source = TARGET_LIMIT;
		return owner;
	}
	for (int depth = 0; depth < MAX_DEPTH && memcg; depth++) {
		if (is_above_high(memcg)) {
			owner.memcg = memcg;
			owner.source = TARGET_HIGH;
			break;
		}
		memcg = memcg_parent(memcg);
	}
	return owner;
}

/*
 * Return the memcg with the least room, among a memcg and its ancestors with a limit; NULL: there
 * is no limit. A charge has failed at one of these limits, and an exiting task may have made room
 * since.
 */
static __always_inline struct mem_cgroup *tightest_limit(struct mem_cgroup *memcg)
{
	struct mem_cgroup *tightest = NULL;
	u64 least = UNLIMITED_PAGES;

	for (int depth = 0; depth < MAX_DEPTH && memcg; depth++) {
		u64 room = room_pages(memcg);

		if (room < least) {
			least = room;
			tightest = memcg;
		}
		memcg = memcg_parent(memcg);
	}
	return tightest;
}

/* Return all bits set if a number is negative, else 0; without a branch, see lesser(). */
static __always_inline u64 sign_bits(u64 number)
{
	u64 bits = (s64)number >> 63;

	asm volatile("" : "+r"(bits)); /* else the compiler makes a branch of it */
	return bits;
}

/*
 * Return the lesser of two numbers below 2^63, without a branch: the verifier would follow both
 * ways of each.
 */
static __always_inline u64 lesser(u64 one, u64 other)
{
	u64 difference = one - other;

	return other + (difference & sign_bits(difference));
}

#define UNLIMITED (~0ULL >> 1)
#define PAGE_COUNTER_MAX (UNLIMITED / PAGE_SIZE) /* include/linux/page_counter.h, 64 bits */

/* Return the room below the limit of a counter; UNLIMITED: it has no limit. */
static __always_inline u64 room_below(struct page_counter *counter)
{
	struct counter value = read_counter(counter);
	u64 room = value.limit_pages - value.usage_pages;
	u64 is_limited = sign_bits(value.limit_pages - PAGE_COUNTER_MAX);

	return (room & ~sign_bits(room) & is_limited) | (UNLIMITED & ~is_limited);
}

/* The values of a memcg together with its ancestors, which need not be traced. */
struct effective {
	u64 limit_pages;
	u64 high_pages;
	u64 swap_limit_pages;
	u64 swap_room_pages;
	u64 swap_bound_levels;
};

/*
 * Return the least limits of a memcg and its ancestors, the least room below a limit of swap, and
 * how many levels up that limit is.
 */
static __always_inline struct effective effective_limits(struct mem_cgroup *memcg)
{
	struct effective least = {UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, -1};

	for (int depth = 0; depth < MAX_DEPTH; depth++) {
		struct mem_cgroup *parent = memcg_parent(memcg);

		if (!parent) /* the root has no limits */
			break;
#ifdef CGROUP_V1
		struct page_counter *swap = &memcg->memsw; /* of memory and swap together */
#else
		struct page_counter *swap = &memcg->swap;

		least.high_pages = lesser(least.high_pages, READ(memcg, memory.high));
#endif
		least.limit_pages = lesser(least.limit_pages, READ(memcg, memory.max));
		least.swap_limit_pages = lesser(least.swap_limit_pages, READ(swap, max));

		u64 room = room_below(swap);
		u64 is_less = sign_bits(room - least.swap_room_pages);

		least.swap_bound_levels = (least.swap_bound_levels & ~is_less) | (depth & is_less);
		least.swap_room_pages = lesser(least.swap_room_pages, room);
		memcg = parent;
	}
	return least;
}

/*
 * Set the fields that a sample and a record of `oom` share. Effective protection is what the last
 * reclaim from above computed (page_counter_calculate_protection in mm/page_counter.c).
 */
#ifdef CGROUP_V1
#define SET_PROTECTION(record, memcg)                \
	({                                           \
		(record)->effective_high_pages = -1; \
		(record)->effective_min_pages = -1;  \
		(record)->effective_low_pages = -1;  \
		(record)->protected_pages = -1;      \
	})
#else
#define SET_PROTECTION(record, memcg)                                               \
	({                                                                          \
		(record)->effective_min_pages = READ(memcg, memory.emin);           \
		(record)->effective_low_pages = READ(memcg, memory.elow);           \
		(record)->protected_pages = READ(memcg, memory.children_min_usage); \
	})
#endif
#define SET_EFFECTIVE(record, memcg)                                            \
	({                                                                      \
		struct effective least_ = effective_limits(memcg);              \
		(record)->effective_limit_pages = least_.limit_pages;           \
		(record)->effective_high_pages = least_.high_pages;             \
		(record)->effective_swap_limit_pages = least_.swap_limit_pages; \
		(record)->swap_room_pages = least_.swap_room_pages;             \
		(record)->swap_bound_levels = least_.swap_bound_levels;         \
		(record)->peak_pages = READ(memcg, memory.watermark);           \
		SET_PROTECTION(record, memcg);                                  \
	})

#endif
