// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `code_sample`: stacks of tasks whose memory grows, one sample for each piece of the
 * growth of a process on a CPU (shared/pieces.h). User space attaches these programs only while a
 * traced cgroup grows (tracer/capture/arming.py). With `--stacks off` they are not compiled.
 *
 * A sample of anonymous memory is followed until its page is freed (shared/held_samples.h): what a
 * program takes and gives back, again and again, is not what it holds.
 *
 * Each kind of memory has a hook that is called once for its growth: anonymous memory the counter
 * of the address space, which counts a huge page in full; page cache the addition of a folio;
 * shared memory, kernel memory and sockets the counters of the memcg.
 */

#include "categories.h"
#include "shared/cpython.h"
#include "shared/known_rss.h"
#include "shared/pieces.h"
#include "shared/stack_copies.h"
#include "shared/tasks.h"

#ifdef SAMPLES_CODE

#define NEWS_INTERVAL_NS 10000000

BPF_ARRAY(last_news, u64, 1); /* when user space was last woken for a process */

/* A function of Python that had a sample. */
struct seen_code {
	u64 code;
	u64 start_stack;
	u32 tgid;
	u32 fingerprint;
};

BPF_TABLE("lru_hash", struct seen_code, u8, seen_codes, 4096);

/*
 * Return whether to wake user space for the first sample of a process on this CPU, or of a function
 * of Python in it: names must be read while the process exists. It is woken at most once in an
 * interval, so that it can keep up; the next sample is news then.
 */
static __always_inline bool is_news(const struct code_sample_event *record)
{
	u32 zero = 0;
	u8 one = 1;
	struct seen_code seen = {record->codes[0], record->start_stack, record->tgid,
				 record->fingerprints[0]};
	struct piece *piece = piece_of(record->category);
	u64 *last = last_news.lookup(&zero);
	bool is_new_code;

	if (!piece || !last || record->time_ns - *last < NEWS_INTERVAL_NS)
		return false;
	is_new_code = seen.code && !seen_codes.lookup(&seen);
	if (piece->is_known && !is_new_code)
		return false;
	if (is_new_code)
		seen_codes.update(&seen, &one);
	piece->is_known = true;
	*last = record->time_ns;
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

/* Set the frames of Python; zeros for other programs. */
#define TAKE_PYTHON(record)                                                                   \
	({                                                                                    \
		struct python_walk *walk_ = python_walk();                                    \
                                                                                              \
		CALL(walk_python, 0, 0);                                                      \
		bpf_probe_read_kernel((record)->codes, sizeof((record)->codes),               \
				      walk_ ? walk_->codes : NULL);                           \
		bpf_probe_read_kernel((record)->fingerprints, sizeof((record)->fingerprints), \
				      walk_ ? walk_->fingerprints : NULL);                    \
		bpf_probe_read_kernel((record)->offsets, sizeof((record)->offsets),           \
				      walk_ ? walk_->offsets : NULL);                         \
	})

static __always_inline void emit_sample(void *ctx, struct mem_cgroup *memcg, u32 category,
					u64 weight_bytes)
{
	struct mm_struct *mm = READ(current_task(), mm);
	struct code_sample_event *record;
	u64 now_ns = bpf_ktime_get_ns();

	record = or_count_lost(code_sample_ring.ringbuf_reserve(sizeof(*record)),
			       STREAM_CODE_SAMPLE);
	if (!record)
		return;
	send_stack_copy(now_ns); /* before its sample is submitted */
	record->time_ns = now_ns;
	record->sampled_ns = 0;
	record->cgroup_id = memcg_id(memcg);
	record->bytes = weight_bytes;
	record->again_bytes = category == CATEGORY_ANON ? take_again_bytes((u64)mm) : 0;
	record->start_code = READ(mm, start_code);
	record->start_stack = READ(mm, start_stack);
	record->tgid = current_tgid();
	record->tid = bpf_get_current_pid_tgid();
	record->category = category;
	record->is_followed = category == CATEGORY_ANON && follow(mm, record);
	TAKE_STACK(ctx, record->kernel, 0);
	TAKE_STACK(ctx, record->user, BPF_F_USER_STACK);
	TAKE_PYTHON(record);

	bool wakes = is_news(record) || are_copies_waiting() ||
		     code_sample_ring.ringbuf_query(BPF_RB_AVAIL_DATA) > STACKS_WAKE_BYTES;

	code_sample_ring.ringbuf_submit(record, wake_flag(wakes));
}

/*
 * Take a sample of the current process. `ctx` is the context of the program; stacks are taken from
 * it. Growth in an interrupt that hit this CPU inside here is not sampled.
 */
static __always_inline void take_sample(void *ctx, struct mem_cgroup *memcg, u32 category,
					u64 weight_bytes)
{
	if (!begin_sampling())
		return;
	see_current(current_tgid());
	emit_sample(ctx, memcg, category, weight_bytes);
	settle((u64)READ(current_task(), mm));
	end_sampling();
}

/* The memory of the current process shrinks, or stays as it is: see which samples were freed. */
static __always_inline void free_samples(struct mm_struct *mm)
{
	if (!begin_sampling())
		return;
	CALL(free_called_range, ADDRESS(mm), 0);
	settle((u64)mm);
	end_sampling();
}

/* mremap(2) has found a place to which it moves memory: the samples move with it. */
PROGRAM(vm_unmapped_area)
{
	if (syscall_number(entry_registers()) != NR_MREMAP || !begin_sampling())
		return 0;
	move_samples(ctx->args[0], READ((struct vm_unmapped_area_info *)ctx->args[1], length));
	settle((u64)READ(current_task(), mm));
	end_sampling();
	return 0;
}

/*
 * Choose what stands for the growth of an address space. Return the weight of a sample to be taken
 * now.
 *
 * The counter shows growth at each SHOWN_PAGES-th page. A program that grows in a rhythm would
 * always be in the same function then. So the sample is taken at a random one of the pages that
 * follow, unless a huge page came.
 */
static __always_inline u64 weigh_rss(struct last_rss *last, struct mem_cgroup *memcg,
				     struct mm_struct *mm, s64 pages)
{
	s64 grown = rss_growth(mm, pages);
	u64 weight_bytes;

	if (last->lag && last->mm != (u64)mm)
		drop_waiting(last);
	last->mm = (u64)mm;
	last->pages = pages;
	if (grown > 0)
		end_range();
	else if (is_traced(memcg))
		free_samples(mm);
	if (IS_SYNCED && !grown)
		return 0;
	weight_bytes = last->lag ? last->weight_bytes : 0;
	last->lag = 0;
	if (grown > 0 && is_traced(memcg))
		weight_bytes += sample_weight(memcg, CATEGORY_ANON,
					      (u64)(grown + take_owed((u64)mm)) * PAGE_SIZE);
	if (!weight_bytes || grown >= HUGE_PAGES)
		return weight_bytes;
	last->weight_bytes = weight_bytes;
	last->lag = bpf_get_prandom_u32() % SHOWN_PAGES + IS_SYNCED;
	return last->lag ? 0 : weight_bytes;
}

/*
 * A counter of an address space changes. It does so under the lock of a page table, for each page.
 * What another task changes is not growth by the code that runs: a fork copies the counters, and a
 * kernel thread may merge pages.
 */
PROGRAM(rss_stat)
{
	struct mm_struct *mm = (struct mm_struct *)ctx->args[0];
	struct task_struct *task = current_task();
	struct mem_cgroup *memcg;
	struct last_rss *last;
	u64 weight_bytes;
	u32 zero = 0;
	s64 pages;

	if ((u32)ctx->args[1] != KERNEL_ENUM_MM_ANONPAGES || mm != LOAD(task, mm))
		return 0;
	/*
	 * The verifier of kernels before v6.2 refuses to load an element of the array, whose type
	 * is a typedef.
	 */
#ifdef HAS_mm_struct_count
	pages = READ(mm, count[KERNEL_ENUM_MM_ANONPAGES]);
#else
	pages = LOAD(mm, rss_stat[KERNEL_ENUM_MM_ANONPAGES].count);
#endif
	last = last_rss.lookup(&zero);
	if (!last)
		return 0;
	if (last->mm == (u64)mm && last->pages == pages && (IS_SYNCED || !last->lag || --last->lag))
		return 0;
	memcg = task_memcg(READ(task, group_leader));
	if (last->mm == (u64)mm && last->pages == pages)
		weight_bytes = last->weight_bytes;
	else
		weight_bytes = weigh_rss(last, memcg, mm, pages);
	if (weight_bytes)
		take_sample(ctx, memcg, CATEGORY_ANON, weight_bytes);
	return 0;
}

#ifdef HAS_mm_struct_count

/* A new anonymous page is mapped, by a page fault or for another task: a sample may wait for it. */
static __always_inline int enter_anon_page(struct call *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->args[1];
	struct task_struct *task = current_task();
	struct mm_struct *mm = READ(task, mm);
	u32 zero = 0;
	struct last_rss *last = last_rss.lookup(&zero);

	if (!last || !last->lag || last->mm != (u64)mm || READ(vma, vm_mm) != mm || --last->lag)
		return 0;
	end_range();
	take_sample(call->ctx, task_memcg(READ(task, group_leader)), CATEGORY_ANON,
		    last->weight_bytes);
	return 0;
}

#endif

/* Sample growth of a kind that has a hook for each change. */
static __always_inline int sample(void *ctx, struct mem_cgroup *memcg, u32 category, s32 pages)
{
	u64 weight_bytes;

	if (pages <= 0 || !is_traced(memcg))
		return 0;
	weight_bytes = sample_weight(memcg, category, (u64)pages * PAGE_SIZE);
	if (weight_bytes)
		take_sample(ctx, memcg, category, weight_bytes);
	return 0;
}

/* A folio of the page cache is added. Shared memory has no event of its own. */
PROGRAM(cache_growth)
{
	struct folio *folio = UNTRUSTED(folio, ctx->args[0]);

	return sample(ctx, folio_memcg(LOAD(folio, memcg_data)), CATEGORY_FILE,
		      folio_nr_pages(folio));
}

/*
 * A counter of a memcg changes. Shared memory, and on v2 sockets, are counted in pages, as is all
 * kernel memory.
 *
 * The change is a long since "mm: memcontrol: change val type to long in
 * __mod_memcg_{lruvec_}state()", v7.1, and was an int before, which arrives without sign extension
 * to 64 bits. No update needs the upper half.
 */
static __always_inline int sample_state(void *ctx, struct mem_cgroup *memcg, u32 category,
					s32 pages)
{
	if (category != CATEGORY_SHMEM && category != CATEGORY_KERNEL && category != CATEGORY_SOCK)
		return 0;
	return sample(ctx, memcg, category, pages);
}

PROGRAM(mod_memcg_lruvec_state)
{
	return sample_state(ctx, (struct mem_cgroup *)ctx->args[0],
			    category_of_lruvec_state(ctx->args[1]), ctx->args[2]);
}

PROGRAM(mod_memcg_state)
{
	return sample_state(ctx, (struct mem_cgroup *)ctx->args[0], category_of_state(ctx->args[1]),
			    ctx->args[2]);
}

static __always_inline int enter_lruvec_state(struct call *call)
{
	return sample_state(call->ctx, memcg_of_lruvec(call->args[0]),
			    category_of_lruvec_state(call->args[1]), call->args[2]);
}

static __always_inline int enter_node_state(struct call *call)
{
	return sample_state(call->ctx, memcg_of_node(call->args[0]),
			    category_of_lruvec_state(call->args[1]), call->args[2]);
}

static __always_inline int enter_memcg_state(struct call *call)
{
	return sample_state(call->ctx, (struct mem_cgroup *)call->args[0],
			    category_of_state(call->args[1]), call->args[2]);
}

#endif
