/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which samples of anonymous memory are still held. A sample is of one page, whose address is that
 * of the page fault. When its process unmaps a range with that address, the sample is freed.
 *
 * A process frees in a few system calls, whose arguments are the range. Each change of the counter
 * of anonymous pages has an event already (rss_stat), so nothing more is attached for it.
 */
#ifndef MEMCG_TRACER_HELD_SAMPLES_H
#define MEMCG_TRACER_HELD_SAMPLES_H

#include "syscalls.h"
#include "tracked.h"

#ifdef SAMPLES_CODE

#define STACKS_BYTES SETTING(stacks_bytes)
#define STACKS_WAKE_BYTES (SETTING(code_sample_ring_bytes) / 2)

BPF_RINGBUF_OUTPUT(code_sample_ring, SIZED_BY_LOADER);

BPF_PERCPU_ARRAY(is_sampling, u32, 1);

/* Return whether no program on this CPU is between here and end_sampling(). */
static __always_inline bool begin_sampling(void)
{
	u32 zero = 0;
	volatile u32 *busy = is_sampling.lookup(&zero);

	if (!busy || *busy)
		return false;
	*busy = 1;
	return true;
}

static __always_inline void end_sampling(void)
{
	u32 zero = 0;
	volatile u32 *busy = is_sampling.lookup(&zero);

	if (busy)
		*busy = 0;
}

#define FAULT_STACK_WORDS 512 /* of the kernel's stack, in which the fault is looked for */
#define HELD_IN_PIECE 4
#define PIECES_AT_ONCE 256 /* of a range; a change of the counter is for at most a page table */
#define MOST_PIECES_MOVED 8192

struct fault_search {
	u64 mm;
	u64 address; /* 0: not found */
	u64 words[FAULT_STACK_WORDS];
};

BPF_PERCPU_ARRAY(fault_searches, struct fault_search, 1);

static __always_inline struct fault_search *fault_search(void)
{
	u32 zero = 0;

	return fault_searches.lookup(&zero);
}

#define FAULT_WORD(member) (offsetof(struct vm_fault, member) / sizeof(u64))

#ifdef HAS_vm_fault_real_address

SUBPROGRAM(look_for_fault)
{
	struct fault_search *search = fault_search();
	u64 at = FAULT_STACK_WORDS - 1 - FAULT_WORD(real_address) - FIRST_ARGUMENT;
	struct vm_area_struct *vma;
	u64 address, end;

	if (!search || at >= FAULT_STACK_WORDS - FAULT_WORD(real_address))
		return 1;
	address = search->words[at + FAULT_WORD(address)];
	if (!address || address % PAGE_SIZE ||
	    search->words[at + FAULT_WORD(real_address)] / PAGE_SIZE != address / PAGE_SIZE)
		return 0;
	vma = (struct vm_area_struct *)search->words[at + FAULT_WORD(vma)];
	end = READ(vma, vm_end);
	if ((u64)READ(vma, vm_mm) != search->mm || address < READ(vma, vm_start) || address >= end)
		return 0;
	if (search->words[at + FAULT_WORD(pgoff)] !=
	    READ(vma, vm_pgoff) + (address - READ(vma, vm_start)) / PAGE_SIZE)
		return 0;
	search->address = address;
	return 1;
}

/*
 * Return the address of the page fault that the current task handles; 0: not known. No argument of
 * the event leads to it. It is in struct vm_fault, a local variable of __handle_mm_fault(), near
 * the begin of the kernel's stack. All that is known of it must match: the area of this address
 * space, the address within the area, the page's number in it.
 */
static __always_inline u64 fault_address(struct mm_struct *mm)
{
	struct fault_search *search = fault_search();
	u64 regs = (u64)entry_registers();
	u64 nothing = 0;

	if (!search || !regs)
		return 0;
	search->mm = (u64)mm;
	search->address = 0;
	bpf_probe_read_kernel(search->words, sizeof(search->words),
			      (void *)(regs - sizeof(search->words)));
	LOOP(look_for_fault, FAULT_STACK_WORDS, &nothing);
	return search->address;
}

#else

static __always_inline u64 fault_address(struct mm_struct *mm)
{
	return 0;
}

#endif

struct held_sample {
	u64 address; /* 0: there is none */
	u64 time_ns;
	u64 bytes;
	u64 cgroup_id;
	u32 tgid; /* of the sample: a child of vfork() may free what its parent has taken */
	u32 tid;
};

/* A piece of an address space. The address of an mm that is gone may be that of another process. */
struct held_key {
	u64 mm;
	u64 owner_tgid;
	u64 piece; /* the address, in pieces of STACKS_BYTES */
};

static __always_inline struct held_key piece_key(u64 mm, u64 piece)
{
	struct mm_struct *of = (struct mm_struct *)mm;
	struct held_key key = {.mm = mm, .piece = piece};

	key.owner_tgid = READ(READ(of, owner), tgid);
	return key;
}

struct held_piece {
	struct held_sample samples[HELD_IN_PIECE];
};

/* On average, there is one sample in a piece. Those of an entry that is evicted count as held. */
BPF_TABLE("lru_hash", struct held_key, struct held_piece, held_pieces, 16384);

BPF_ARRAY(no_samples, struct held_piece, 1); /* too large for the stack of a program */

/* A range of addresses that a system call frees or moves, by pieces. */
struct freed_range {
	u64 mm;
	u64 begin;
	u64 end;
	u64 next; /* the piece that is looked at next */
	u64 moved_by; /* 0: freed */
	u64 switches; /* of the task: it was not elsewhere meanwhile */
	u64 freed_bytes; /* of all samples, since `settle` took them */
	u32 tid;
	u32 pad;
};

BPF_PERCPU_ARRAY(freed_ranges, struct freed_range, 1);

static __always_inline struct freed_range *freed_range(void)
{
	u32 zero = 0;

	return freed_ranges.lookup(&zero);
}

/* Send that a sample was freed, and forget it. */
static __always_inline void send_freed(struct held_sample *sample)
{
	struct freed_range *range = freed_range();
	struct code_sample_event *record;

	if (range)
		range->freed_bytes += sample->bytes;
	/* At once before the test: the verifier of 6.1 loses that it was tested before. */
	record = or_count_lost(code_sample_ring.ringbuf_reserve(sizeof(*record)),
			       STREAM_CODE_SAMPLE);
	if (record) {
		CLEAR(record);
		record->time_ns = bpf_ktime_get_ns();
		record->sampled_ns = sample->time_ns;
		record->cgroup_id = sample->cgroup_id;
		record->bytes = -(s64)sample->bytes;
		record->tgid = sample->tgid;
		record->tid = sample->tid;
		record->category = CATEGORY_ANON;
		code_sample_ring.ringbuf_submit(
			record, wake_flag(code_sample_ring.ringbuf_query(BPF_RB_AVAIL_DATA) >
					  STACKS_WAKE_BYTES));
	}
	sample->address = 0;
}

/*
 * Remember a sample by its page. Return whether there was room. An earlier sample of this page was
 * freed, which was not seen.
 */
static __always_inline bool hold(u64 mm, const struct held_sample *sample)
{
	struct held_key key = piece_key(mm, sample->address / STACKS_BYTES);
	u32 zero = 0;
	struct held_piece *none = no_samples.lookup(&zero);
	struct held_piece *piece = none ? held_pieces.lookup_or_try_init(&key, none) : NULL;
	u32 place = HELD_IN_PIECE;

	if (!piece)
		return false;
#pragma unroll
	for (u32 at = 0; at < HELD_IN_PIECE; at++) {
		if (piece->samples[at].address == sample->address)
			send_freed(&piece->samples[at]);
		if (!piece->samples[at].address)
			place = at;
	}
	if (place >= HELD_IN_PIECE)
		return false;
	piece->samples[place] = *sample;
	return true;
}

/* Follow a sample of the current process. Return whether its page is known. */
static __always_inline bool follow(struct mm_struct *mm, const struct code_sample_event *record)
{
	struct held_sample sample = {.address = fault_address(mm)};

	if (!sample.address)
		return false;
	sample.time_ns = record->time_ns;
	sample.bytes = record->bytes;
	sample.cgroup_id = record->cgroup_id;
	sample.tgid = record->tgid;
	sample.tid = record->tid;
	return hold((u64)mm, &sample);
}

SUBPROGRAM(free_piece)
{
	struct freed_range *range = freed_range();
	struct held_key key;
	struct held_piece *piece;

	if (!range || range->next * STACKS_BYTES >= range->end)
		return 1;
	key = piece_key(range->mm, range->next++);
	piece = held_pieces.lookup(&key);
	if (!piece)
		return 0;
#pragma unroll
	for (u32 at = 0; at < HELD_IN_PIECE; at++) {
		struct held_sample *sample = &piece->samples[at];

		if (sample->address < range->begin || sample->address >= range->end)
			continue;
		if (range->moved_by) {
			struct held_sample moved = *sample;

			moved.address += range->moved_by;
			sample->address = 0;
			hold(range->mm, &moved);
		} else {
			send_freed(sample);
		}
	}
	return 0;
}

/* Numbers of system calls that free memory, and what their arguments are. */
#define NR_MMAP NR(9, 222)
#define NR_MUNMAP NR(11, 215)
#define NR_BRK NR(12, 214)
#define NR_MREMAP NR(25, 216)
#define NR_MADVISE NR(28, 233)
#define MADV_DONTNEED 4
#define MAP_FIXED 0x10
#define BRK_BYTES (64UL << 20) /* that a lower end of the heap frees, at most */

static __always_inline bool may_free(s64 number)
{
	return number == NR_MUNMAP || number == NR_MADVISE || number == NR_BRK ||
	       number == NR_MREMAP || number == NR_MMAP;
}

/* Return the end of the range that the system call frees, and set its begin; 0: it frees none. */
static __always_inline u64 range_of_call(struct pt_regs *regs, u64 *begin)
{
	s64 number = syscall_number(regs);
	u64 first, second, third;

	if (!may_free(number))
		return 0;
	first = syscall_argument(regs, 0);
	second = syscall_argument(regs, 1);
	*begin = first;
	if (number == NR_MUNMAP)
		return first + second;
	if (number == NR_BRK)
		return first ? first + BRK_BYTES : 0;
	third = syscall_argument(regs, 2);
	if (number == NR_MADVISE)
		return third == MADV_DONTNEED ? first + second : 0;
	if (number == NR_MREMAP) {
		*begin = first + third;
		return third < second ? first + second : 0;
	}
	return syscall_argument(regs, 3) & MAP_FIXED ? first + second : 0;
}

static __always_inline u64 switches_of(struct task_struct *task)
{
	return LOAD(task, nvcsw) + LOAD(task, nivcsw);
}

/*
 * Send which samples the current system call frees. It frees a table of pages at a time, and the
 * counter of the address space changes each time: a part of the range is looked at.
 */
SUBPROGRAM(free_called_range)
{
	struct task_struct *task = current_task();
	struct freed_range *range = freed_range();
	u64 begin = 0, nothing = 0;
	u64 end = range_of_call(entry_registers(), &begin);
	u64 switches = switches_of(task);
	u32 tid = bpf_get_current_pid_tgid();

	if (!end || !range)
		return 0;
	if (range->tid != tid || range->begin != begin || range->end != end ||
	    range->switches != switches || range->mm != FIRST_ARGUMENT) {
		range->mm = FIRST_ARGUMENT;
		range->begin = begin;
		range->end = end;
		range->next = begin / STACKS_BYTES;
		range->switches = switches;
		range->tid = tid;
	}
	range->moved_by = 0;
	LOOP(free_piece, PIECES_AT_ONCE, &nothing);
	return 0;
}

/* Memory grows on this CPU: the next call that frees the same range frees other memory. */
static __always_inline void end_range(void)
{
	struct freed_range *range = freed_range();

	if (range)
		range->tid = 0;
}

#define PMD_BYTES (PAGE_SIZE * (PAGE_SIZE / sizeof(u64)))

/*
 * Move the samples of the current mremap(2) to `place`. The tables of pages move without an event.
 * For a place that is aligned to huge pages, the kernel looks for a longer one, of `length`
 * (__thp_get_unmapped_area in mm/huge_memory.c).
 */
static __always_inline void move_samples(u64 place, u64 length)
{
	struct pt_regs *regs = entry_registers();
	struct freed_range *range = freed_range();
	u64 begin, nothing = 0;

	if (!regs || !range || place % PAGE_SIZE) /* an error */
		return;
	begin = syscall_argument(regs, 0);
	if (length >= syscall_argument(regs, 2) + PMD_BYTES)
		place = (place + PMD_BYTES - 1) / PMD_BYTES * PMD_BYTES;
	range->mm = (u64)READ(current_task(), mm);
	range->begin = begin;
	range->end = begin + syscall_argument(regs, 1);
	range->next = begin / STACKS_BYTES;
	range->moved_by = place - begin;
	range->tid = 0;
	LOOP(free_piece, MOST_PIECES_MOVED, &nothing);
}

#endif

#endif
