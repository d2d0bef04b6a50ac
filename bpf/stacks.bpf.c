// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `stack_sample`: stacks of tasks that charge memory, one sample for each STACKS_BYTES
 * that a process charges on a CPU. The loader defines STACKS_BYTES only with `--stacks`; otherwise
 * no sampling code is compiled in.
 *
 * What a process charges on a CPU is treated as a stream of bytes, cut into pieces of STACKS_BYTES.
 * One byte of each piece is chosen at random, and the charge that contains it is sampled. So each
 * byte has the same chance, whatever the rhythm of the work. The weights of a process's samples add
 * up to the bytes that it charged, to within one piece on each CPU.
 */

#include "categories.h"
#include "shared/tasks.h"

#ifdef STACKS_BYTES

#define NEWS_INTERVAL_NS 10000000
#define STACKS_WAKE_BYTES (STACK_SAMPLE_RING_PAGES * PAGE_SIZE / 2)

BPF_RINGBUF_OUTPUT(stack_sample_ring, STACK_SAMPLE_RING_PAGES);

/* The position in the stream of a process on this CPU. */
struct piece {
	u64 filled_bytes;
	u64 chosen_byte; /* from 1 */
	u64 is_known; /* user space was woken for the process, or need not be */
};

/* By process. An entry that is evicted loses less than a piece. */
BPF_TABLE("lru_percpu_hash", u32, struct piece, pieces, 8192);

static __always_inline u64 any_byte(void)
{
	return ((u64)bpf_get_prandom_u32() * STACKS_BYTES >> 32) + 1;
}

/* Return the piece of a process. The map holds zeros for a process that is new on this CPU. */
static __always_inline struct piece *piece_of(u32 tgid)
{
	struct piece none = {};
	struct piece *piece = pieces.lookup_or_try_init(&tgid, &none);

	if (piece && !piece->chosen_byte)
		piece->chosen_byte = any_byte();
	return piece;
}

/* Return the weight of the sample of this charge; 0 = it is not sampled. */
static __always_inline u64 sample_weight(u32 tgid, u64 charged_bytes)
{
	struct piece *piece = piece_of(tgid);

	if (!piece)
		return 0;

	u64 end = piece->filled_bytes + charged_bytes;
	u64 weight_bytes = piece->filled_bytes < piece->chosen_byte && end >= piece->chosen_byte
				   ? STACKS_BYTES
				   : 0;

	if (end >= STACKS_BYTES) {
		/* The charge also fills later pieces, and begins another. */
		weight_bytes += (end / STACKS_BYTES - 1) * STACKS_BYTES;
		end %= STACKS_BYTES;
		piece->chosen_byte = any_byte();
		if (end >= piece->chosen_byte)
			weight_bytes += STACKS_BYTES;
	}
	piece->filled_bytes = end;
	return weight_bytes;
}

BPF_ARRAY(last_news, u64, 1); /* when user space was last woken for a process */

/*
 * Return whether to wake user space for the first sample of a process on this CPU: the symbols must
 * be read while the process exists. It is woken at most once in an interval, so that it can keep
 * up.
 */
static __always_inline bool is_news(u32 tgid, u64 now_ns)
{
	u32 zero = 0;
	struct piece *piece = pieces.lookup(&tgid);
	u64 *last = last_news.lookup(&zero);

	if (!piece || piece->is_known || !last)
		return false;
	piece->is_known = true;
	if (now_ns - *last < NEWS_INTERVAL_NS)
		return false;
	*last = now_ns;
	return true;
}

/*
 * A stack that cannot be taken is empty. The helper clears the rest of the buffer, but not always
 * when it fails.
 */
#define TAKE_STACK(ctx, frames, flags)                                     \
	({                                                                 \
		if (bpf_get_stack(ctx, frames, sizeof(frames), flags) < 0) \
			CLEAR(&(frames));                                  \
	})

static __always_inline void emit_sample(void *ctx, struct mem_cgroup *memcg, u32 category,
					u64 weight_bytes)
{
	struct mm_struct *mm = READ(current_task(), mm);
	struct stack_sample_event *record;

	record = or_count_lost(stack_sample_ring.ringbuf_reserve(sizeof(*record)),
			       STREAM_STACK_SAMPLE);
	if (!record)
		return;
	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = memcg_id(memcg);
	record->weight_bytes = weight_bytes;
	record->start_code = READ(mm, start_code);
	record->start_stack = READ(mm, start_stack);
	record->tgid = current_tgid();
	record->pid = bpf_get_current_pid_tgid();
	record->category = category;
	TAKE_STACK(ctx, record->kernel, 0);
	TAKE_STACK(ctx, record->user, BPF_F_USER_STACK);

	bool wakes = is_news(record->tgid, record->time_ns) ||
		     stack_sample_ring.ringbuf_query(BPF_RB_AVAIL_DATA) > STACKS_WAKE_BYTES;

	stack_sample_ring.ringbuf_submit(record, wake_flag(wakes));
}

BPF_PERCPU_ARRAY(is_sampling, u32, 1);

/*
 * Sample a charge. `ctx` is the context of the program; stacks are taken from it. All categories
 * that make up usage are counted in pages. A charge by an interrupt that hit this CPU inside here
 * is not sampled.
 */
static __always_inline int sample(void *ctx, struct mem_cgroup *memcg, u32 category, s32 pages)
{
	u32 zero = 0;
	u32 tgid = current_tgid();
	volatile u32 *busy = is_sampling.lookup(&zero);
	u64 weight_bytes;

	if (pages <= 0 || !is_in_usage(category) || !busy || *busy || !is_traced(memcg))
		return 0;
	*busy = 1;
	weight_bytes = sample_weight(tgid, (u64)pages * PAGE_SIZE);
	if (weight_bytes) {
		see_current(tgid);
		emit_sample(ctx, memcg, category, weight_bytes);
	}
	*busy = 0;
	return 0;
}

/*
 * The change is a long since "mm: memcontrol: change val type to long in
 * __mod_memcg_{lruvec_}state()", v7.1, and was an int before, which arrives without sign extension
 * to 64 bits. No update needs the upper half.
 */
PROGRAM(mod_memcg_lruvec_state)
{
	return sample(ctx, (struct mem_cgroup *)ctx->args[0],
		      category_of_lruvec_state(ctx->args[1]), ctx->args[2]);
}

PROGRAM(mod_memcg_state)
{
	return sample(ctx, (struct mem_cgroup *)ctx->args[0], category_of_state(ctx->args[1]),
		      ctx->args[2]);
}

static __always_inline int enter_lruvec_state(struct call *call)
{
	return sample(call->ctx, memcg_of_lruvec(call->args[0]),
		      category_of_lruvec_state(call->args[1]), call->args[2]);
}

static __always_inline int enter_node_state(struct call *call)
{
	return sample(call->ctx, memcg_of_node(call->args[0]),
		      category_of_lruvec_state(call->args[1]), call->args[2]);
}

static __always_inline int enter_memcg_state(struct call *call)
{
	return sample(call->ctx, (struct mem_cgroup *)call->args[0],
		      category_of_state(call->args[1]), call->args[2]);
}

#endif
