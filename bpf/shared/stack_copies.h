/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Copies of user stacks, with the registers: what it takes to unwind a stack without frame pointers
 * (tracer/capture/symbols/unwinding.py). They have a ring of their own: if it is full, a sample
 * keeps its frames by frame pointers.
 */
#ifndef MEMCG_TRACER_STACK_COPIES_H
#define MEMCG_TRACER_STACK_COPIES_H

#include "syscalls.h"
#include "user_memory.h"

#ifdef COPIES_STACKS

BPF_RINGBUF_OUTPUT(stack_copy_ring, SIZED_BY_LOADER);

#define COPIES_WAKE_BYTES (SETTING(stack_copy_ring_bytes) / 2)
#define LEAST_PART 512

/*
 * Copy the stack of the current task from `sp` on. Return how much. The helper reads all or
 * nothing, and a stack ends before the whole size: the parts get smaller by halves.
 */
static __always_inline u32 copy_stack(u8 *stack, u64 sp)
{
	u32 copied = 0;

	if (!read_user(stack, TRACER_STACK_COPY_BYTES, (void *)sp))
		return TRACER_STACK_COPY_BYTES;
#pragma unroll
	for (u32 part = TRACER_STACK_COPY_BYTES / 2; part >= LEAST_PART; part /= 2) {
		/* A multiple of two parts: the verifier sees that the part ends inside. */
		u32 at = copied & (TRACER_STACK_COPY_BYTES - 2 * part);

		if (!read_user(stack + at, part, (void *)(sp + at)))
			copied = at + part;
	}
	return copied;
}

/*
 * Send the registers and the stack of the current task in user mode, for its sample at `time_ns`.
 */
static __always_inline void send_stack_copy(u64 time_ns)
{
	struct pt_regs *regs = entry_registers();
	u64 sp = regs ? LOAD(regs, sp) : 0;
	struct stack_copy_event *record;

	if (!sp)
		return;
	record = or_count_lost(stack_copy_ring.ringbuf_reserve(sizeof(*record)), STREAM_STACK_COPY);
	if (!record)
		return;
	record->time_ns = time_ns;
	record->tid = bpf_get_current_pid_tgid();
	bpf_probe_read_kernel(record->registers, sizeof(record->registers), regs);
	record->nr_bytes = copy_stack(record->stack, sp);
	stack_copy_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline bool are_copies_waiting(void)
{
	return stack_copy_ring.ringbuf_query(BPF_RB_AVAIL_DATA) > COPIES_WAKE_BYTES;
}

#else

static __always_inline void send_stack_copy(u64 time_ns)
{
}

static __always_inline bool are_copies_waiting(void)
{
	return false;
}

#endif

#endif
