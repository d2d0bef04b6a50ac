/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The limit that a charge has hit, according to the page counters. */
#ifndef MEMCG_TRACER_LIMITS_H
#define MEMCG_TRACER_LIMITS_H

#include "../events.h"
#include "kernel.h"

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
 * left; of several without room, the nearest.
 */
static __always_inline struct owner limit_owner(struct mem_cgroup *memcg)
{
	struct owner owner = {.memcg = NULL, .source = TARGET_NONE};
	u64 least = NEAR_LIMIT_PAGES + 1;

	for (int depth = 0; depth < MAX_DEPTH; depth++) {
		if (!memcg)
			break;

		u64 room = room_pages(memcg);

		if (room < least) {
			least = room;
			owner.memcg = memcg;
			owner.source = TARGET_LIMIT;
		} else if (!owner.memcg && is_above_high(memcg)) {
			owner.memcg = memcg;
			owner.source = TARGET_HIGH;
		}
		memcg = memcg_parent(memcg);
	}
	return owner;
}

#endif
