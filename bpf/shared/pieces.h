/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which growth is sampled. The growth of a process on a CPU is treated as a stream of bytes, cut
 * into pieces. One byte of each piece is chosen at random, and the growth that contains it is
 * sampled. The sample weighs as much as the piece. So weights are right on average for each
 * function, whatever the rhythm of the work. The weights of a process's samples add up to the
 * bytes by which it grew, to within one piece on each CPU.
 *
 * Page cache is a stream of its own. It comes and goes by gigabytes a second, and what it holds is
 * at most the limit. So its pieces grow with the pace at which it comes to its cgroup. The size of
 * a piece is known before its byte is chosen, so weights stay right.
 */
#ifndef MEMCG_TRACER_PIECES_H
#define MEMCG_TRACER_PIECES_H

#include "../categories.h"
#include "held_samples.h"

#ifdef SAMPLES_CODE

/* Who grows: a process, and whether by page cache. */
struct growing {
	u32 tgid;
	u32 is_cache;
};

/* The position in a stream on this CPU. */
struct piece {
	u64 size_bytes; /* 0: the stream is new on this CPU */
	u64 filled_bytes;
	u64 chosen_byte; /* from 1 */
	u64 is_known; /* user space was woken for the process, or need not be */
};

/* An entry that is evicted loses less than a piece. */
BPF_TABLE("lru_percpu_hash", struct growing, struct piece, pieces, 8192);

/* The page cache of a cgroup has about so many samples in an interval, on each CPU. */
#define PACED_SAMPLES 4
#define PACE_INTERVAL_MS 100
#define MOST_PIECE_BYTES (1ULL << 30) /* any_byte() has 32 bits of chance */

/* How much page cache has come to a cgroup on this CPU since a time. */
struct pace {
	u64 since_ns; /* 0: it is new on this CPU */
	u64 bytes;
	u64 piece_bytes;
};

/* By the address of a memcg. If an entry is evicted, its pieces begin small again. */
BPF_TABLE("lru_percpu_hash", u64, struct pace, paces, 1024);

/* Return the size of the next piece of page cache, after one of `done_bytes`. */
static __always_inline u64 paced_bytes(struct mem_cgroup *memcg, u64 done_bytes)
{
	struct pace none = {};
	u64 address = (u64)memcg, now_ns = bpf_ktime_get_ns();
	struct pace *pace = paces.lookup_or_try_init(&address, &none);
	u64 passed_ms, bytes;

	if (!pace)
		return STACKS_BYTES;
	pace->bytes += done_bytes;
	passed_ms = (now_ns - pace->since_ns) / 1000000;
	if (passed_ms < PACE_INTERVAL_MS)
		return pace->piece_bytes;
	bytes = pace->bytes / passed_ms * (PACE_INTERVAL_MS / PACED_SAMPLES);
	if (bytes > MOST_PIECE_BYTES)
		bytes = MOST_PIECE_BYTES;
	*pace = (struct pace){.since_ns = now_ns,
			      .piece_bytes = bytes > STACKS_BYTES ? bytes : STACKS_BYTES};
	return pace->piece_bytes;
}

static __always_inline u64 any_byte(u64 size_bytes)
{
	return ((u64)bpf_get_prandom_u32() * size_bytes >> 32) + 1;
}

/* Begin the next piece, after one of `done_bytes`. */
static __always_inline void begin_piece(struct piece *piece, struct mem_cgroup *memcg, u32 category,
					u64 done_bytes)
{
	piece->size_bytes = STACKS_BYTES;
	if (category == CATEGORY_FILE)
		piece->size_bytes = paced_bytes(memcg, done_bytes);
	piece->chosen_byte = any_byte(piece->size_bytes);
}

static __always_inline struct piece *piece_of(u32 category)
{
	struct growing growing = {current_tgid(), category == CATEGORY_FILE};
	struct piece none = {};

	return pieces.lookup_or_try_init(&growing, &none);
}

/* Return the weight of the sample of this growth of the current process; 0 = it is not sampled. */
static __always_inline u64 sample_weight(struct mem_cgroup *memcg, u32 category, u64 grown_bytes)
{
	struct piece *piece = piece_of(category);
	u64 end, weight_bytes = 0;

	if (!piece)
		return 0;
	if (!piece->size_bytes)
		begin_piece(piece, memcg, category, 0);
	end = piece->filled_bytes + grown_bytes;
	if (piece->filled_bytes < piece->chosen_byte && end >= piece->chosen_byte)
		weight_bytes = piece->size_bytes;
	if (end >= piece->size_bytes) {
		/* The growth also fills later pieces, and begins another. */
		end -= piece->size_bytes;
		begin_piece(piece, memcg, category, piece->size_bytes);
		weight_bytes += end / piece->size_bytes * piece->size_bytes;
		end %= piece->size_bytes;
		if (end >= piece->chosen_byte)
			weight_bytes += piece->size_bytes;
	}
	piece->filled_bytes = end;
	return weight_bytes;
}

#endif

#endif
