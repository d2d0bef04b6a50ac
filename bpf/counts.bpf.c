// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Programs that count pages scanned and stolen (shared/reclaim_counts.h). */

#include "shared/reclaim_counts.h"

static __always_inline int count_event(u64 memcg, u32 item, u64 count)
{
#ifdef RECLAIM_COUNTS_ARE_NODE_STATS
	return 0; /* the items of shared/reclaim_counts.h are of another enum here */
#else
	return count_reclaim((struct mem_cgroup *)memcg, item, count);
#endif
}

PROGRAM(count_memcg_events)
{
	return count_event(ctx->args[0], ctx->args[1], ctx->args[2]);
}

static __always_inline int enter_count_events(struct call *call)
{
	return count_event(call->args[0], call->args[1], call->args[2]);
}
