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

/* What the counters of a memcg and its ancestors show. */
struct limits {
	struct mem_cgroup *at; /* the next to be examined */
	struct mem_cgroup *tightest; /* with the least room; if several have it, the nearest */
	struct mem_cgroup *high; /* the nearest above its memory.high */
	u64 least; /* the room of `tightest`; UNLIMITED_PAGES: there is no limit */
};

SUBPROGRAM(examine_limit)
{
	struct limits *limits = (struct limits *)SECOND_ARGUMENT;
	u64 room;

	if (!limits->at)
		return 1;
	room = room_pages(limits->at);
	if (room < limits->least) {
		limits->least = room;
		limits->tightest = limits->at;
	}
	if (!limits->high && is_above_high(limits->at))
		limits->high = limits->at;
	limits->at = memcg_parent(limits->at);
	return 0;
}

static __always_inline struct limits limits_above(struct mem_cgroup *memcg)
{
	struct limits limits = {.at = memcg, .least = UNLIMITED_PAGES};

	LOOP(examine_limit, MAX_DEPTH, &limits);
	return limits;
}

/*
 * Return the memcg whose limit a charge of the current task has hit. On the way to the root, the
 * first counter without room refuses the charge. So the owner is the memcg with the least room
 * left. If all have room, it is the nearest memcg above its memory.high.
 */
static __always_inline struct owner limit_owner(struct limits *limits)
{
	if (limits->least <= NEAR_LIMIT_PAGES)
		return (struct owner){.memcg = limits->tightest, .source = TARGET_LIMIT};
	if (limits->high)
		return (struct owner){.memcg = limits->high, .source = TARGET_HIGH};
	return (struct owner){.memcg = NULL, .source = TARGET_NONE};
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
	struct mem_cgroup *at; /* the next to be examined */
	u64 limit_pages;
	u64 high_pages;
	u64 swap_limit_pages;
	u64 swap_room_pages;
	u64 swap_bound_levels;
};

SUBPROGRAM(examine_effective)
{
	struct effective *least = (struct effective *)SECOND_ARGUMENT;
	struct mem_cgroup *parent = memcg_parent(least->at);

	if (!parent) /* the root has no limits */
		return 1;
#ifdef CGROUP_V1
	struct page_counter *swap = &least->at->memsw; /* of memory and swap together */
#else
	struct page_counter *swap = &least->at->swap;

	least->high_pages = lesser(least->high_pages, READ(least->at, memory.high));
#endif
	least->limit_pages = lesser(least->limit_pages, READ(least->at, memory.max));
	least->swap_limit_pages = lesser(least->swap_limit_pages, READ(swap, max));

	u64 room = room_below(swap);
	u64 is_less = sign_bits(room - least->swap_room_pages);

	least->swap_bound_levels =
		(least->swap_bound_levels & ~is_less) | (FIRST_ARGUMENT & is_less);
	least->swap_room_pages = lesser(least->swap_room_pages, room);
	least->at = parent;
	return 0;
}

/*
 * Return the least limits of a memcg and its ancestors, the least room below a limit of swap, and
 * how many levels up that limit is.
 */
static __always_inline struct effective effective_limits(struct mem_cgroup *memcg)
{
	struct effective least = {memcg, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, -1};

	LOOP(examine_effective, MAX_DEPTH, &least);
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
