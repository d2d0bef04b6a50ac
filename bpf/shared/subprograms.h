/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Functions that are not inlined, which keep what the verifier has to follow short. */
#ifndef MEMCG_TRACER_SUBPROGRAMS_H
#define MEMCG_TRACER_SUBPROGRAMS_H

/*
 * A function that is not inlined; all others are. The loader puts it behind each program that calls
 * it (ObjectFile.linked in tracer/capture/bpf/compiled/object_file.py). Its two arguments are in
 * one parameter: BCC takes further parameters for those of a probe.
 *
 * CALL: the verifier examines the function once, for any arguments, and not once for each state of
 * each caller. The arguments are numbers to it: a pointer whose type the verifier may know needs
 * ADDRESS.
 *
 * LOOP: a helper calls the function for each turn of a loop until it returns 1. The verifier
 * examines a few turns, and not all of them. The first argument is the turn's number, the second
 * is a pointer into the caller's stack.
 */
#define SUBPROGRAM(name) int name(unsigned __int128 arguments)
#define FIRST_ARGUMENT ((u64)arguments)
#define SECOND_ARGUMENT ((u64)(arguments >> 64))
#define CALL(name, first, second) \
	((int (*)(u64, u64))(u64)(SUBPROGRAMS + NUMBER_OF_##name))((u64)(first), (u64)(second))
#define ADDRESS(pointer)                                                \
	({                                                              \
		const void *typed_ = (pointer);                         \
		u64 address_;                                           \
		bpf_probe_read_kernel(&address_, sizeof(u64), &typed_); \
		address_;                                               \
	})
#define LOOP(name, turns, state) \
	bpf_loop(turns, (void *)bpf_pseudo_fd(4, NUMBER_OF_##name), state, 0)

#endif
