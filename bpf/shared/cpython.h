/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The frames of a CPython program, read from its memory while it runs: user space would find others
 * a moment later. Code objects are named afterwards (tracer/capture/symbols/cpython_names.py).
 */
#ifndef MEMCG_TRACER_CPYTHON_H
#define MEMCG_TRACER_CPYTHON_H

#include "kernel.h"
#include "user_memory.h"

#define PYTHON_THREADS 512 /* that are looked at */
#define PYTHON_STEPS 128 /* frames that are looked at, with the entries from C */
#define PYTHON_FRAME_BYTES 80 /* of _PyInterpreterFrame: it has a local variable at least */
#define PYTHON_FRAME_SPAN 128 /* a power of two, for the verifier */

/*
 * Where a process has its threads and frames, as user space found it
 * (tracer/kernel/process/cpython.py). Numbers without "address" are offsets.
 */
struct python {
	u64 head_address; /* of the pointer to the first interpreter (_PyRuntime.interpreters.head)
			   */
	u32 threads; /* in PyInterpreterState: the first thread */
	u32 next; /* in PyThreadState */
	u32 thread_id; /* in PyThreadState: pthread_self() */
	u32 cframe; /* in PyThreadState; 0: it has `frame` itself */
	u32 frame; /* the innermost frame, in _PyCFrame or PyThreadState */
	u32 previous; /* in _PyInterpreterFrame, as the following */
	u32 code;
	u32 instruction;
	u32 owner;
	u32 version; /* in PyCodeObject, co_version; 0: it has none (before 3.12) */
	u32 line_table; /* in PyCodeObject */
	u32 text; /* in PyASCIIObject: the characters */
};

/*
 * A program that runs, by members of struct mm_struct that each exec chooses anew. What a fork
 * makes has the same, and the same interpreter at the same place.
 */
struct running_image {
	u64 start_code;
	u64 start_stack;
};

BPF_TABLE("lru_hash", struct running_image, struct python, pythons, 1024);

struct python_walk {
	struct python of;
	u64 self; /* pthread_self() of the current thread */
	u64 thread;
	u64 frame;
	u64 depth;
	u8 in_frame[PYTHON_FRAME_SPAN];
	u64 codes[TRACER_PYTHON_FRAMES];
	u32 fingerprints[TRACER_PYTHON_FRAMES];
	u32 offsets[TRACER_PYTHON_FRAMES];
};

BPF_PERCPU_ARRAY(python_walks, struct python_walk, 1);

static __always_inline struct python_walk *python_walk(void)
{
	u32 zero = 0;

	return python_walks.lookup(&zero);
}

static __always_inline u64 load_user(u64 address)
{
	u64 value = 0;

	read_user(&value, sizeof(value), (void *)address);
	return value;
}

/* Return pthread_self() of the current thread, which is the same in every pid namespace. */
static __always_inline u64 thread_pointer(void)
{
#if defined(TRACER_X86_64)
	return READ(current_task(), fsbase);
#elif defined(TRACER_ARM64)
	return READ(current_task(), tp_value);
#endif
}

SUBPROGRAM(next_python_thread)
{
	struct python_walk *walk = python_walk();

	if (!walk || !walk->thread || load_user(walk->thread + walk->of.thread_id) == walk->self)
		return 1;
	walk->thread = load_user(walk->thread + walk->of.next);
	return 0;
}

/*
 * What tells a code object from those that are at its address at other times: functions that are
 * made and freed in turn come to the same places. It is co_version since 3.12, which no two objects
 * share. In 3.11 it is mixed of the members up to co_linetable, which do not change. Their pointers
 * can be those of an earlier object, so the hash of the function's name counts too, and the end of
 * the file's. User space makes the same number (_fingerprint() in
 * tracer/capture/symbols/cpython_names.py).
 */
#define CODE_WORDS 9 /* up to co_linetable */
#define CODE_FILENAME 5
#define CODE_NAME 6
#define TEXT_LENGTH 16
#define TEXT_HASH 24
#define TEXT_END_BYTES 32
#define FINGERPRINT_WORDS (CODE_WORDS + 1 + TEXT_END_BYTES / 8)
#define FINGERPRINT_FACTOR 0x9e3779b97f4a7c15UL

static __always_inline u32 fingerprint(const struct python *of, u64 code)
{
	u64 words[FINGERPRINT_WORDS] = {};
	u64 length, size, mixed = 0;

	if (of->version) {
		u32 version = 0;

		read_user(&version, sizeof(version), (void *)(code + of->version));
		return version;
	}
	read_user(words, CODE_WORDS * 8, (void *)(code + of->line_table - (CODE_WORDS - 1) * 8));
	words[CODE_WORDS] = load_user(words[CODE_NAME] + TEXT_HASH);
	length = load_user(words[CODE_FILENAME] + TEXT_LENGTH);
	size = length < TEXT_END_BYTES ? length : TEXT_END_BYTES;
	read_user(&words[CODE_WORDS + 1], size,
		  (void *)(words[CODE_FILENAME] + of->text + length - size));
	for (u32 at = 0; at < FINGERPRINT_WORDS; at++) {
		mixed = (mixed ^ words[at]) * FINGERPRINT_FACTOR;
		mixed ^= mixed >> 32;
	}
	return mixed;
}

/*
 * enum _frameowner of CPython: from 3 on, an entry from C. That is FRAME_OWNED_BY_CSTACK in 3.12
 * and 3.13, which is 4 in 3.14, and FRAME_OWNED_BY_INTERPRETER since 3.14.
 */
#define FRAME_OWNED_BY_ENTRY 3

#define IN_FRAME(walk, type, member) \
	(*(type *)&(walk)->in_frame[(walk)->of.member & (PYTHON_FRAME_SPAN - sizeof(type))])

SUBPROGRAM(next_python_frame)
{
	struct python_walk *walk = python_walk();

	if (!walk || !walk->frame || walk->depth >= TRACER_PYTHON_FRAMES)
		return 1;
	if (read_user(walk->in_frame, PYTHON_FRAME_BYTES, (void *)walk->frame) < 0)
		return 1;
	if (IN_FRAME(walk, u8, owner) < FRAME_OWNED_BY_ENTRY) {
		u64 at = walk->depth++ & (TRACER_PYTHON_FRAMES - 1);
		u64 code = IN_FRAME(walk, u64, code) & ~3UL; /* tags: a bit in 3.13, two since */

		walk->codes[at] = code;
		walk->fingerprints[at] = fingerprint(&walk->of, code);
		walk->offsets[at] = IN_FRAME(walk, u64, instruction) - code;
	}
	walk->frame = IN_FRAME(walk, u64, previous);
	return 0;
}

/* Read the frames of the current thread into `python_walks`. Return how many there are. */
SUBPROGRAM(walk_python)
{
	struct python_walk *walk = python_walk();
	struct mm_struct *mm = READ(current_task(), mm);
	struct running_image image = {READ(mm, start_code), READ(mm, start_stack)};
	struct python *found = pythons.lookup(&image);
	u64 nothing = 0;

	if (!walk)
		return 0;
	CLEAR(walk);
	if (!found)
		return 0;
	bpf_probe_read_kernel(&walk->of, sizeof(walk->of), found);
	walk->self = thread_pointer();
	walk->thread = load_user(load_user(walk->of.head_address) + walk->of.threads);
	LOOP(next_python_thread, PYTHON_THREADS, &nothing);
	/* The loop may have ended at its bound, at another thread: the oldest is the last. */
	if (!walk->thread || load_user(walk->thread + walk->of.thread_id) != walk->self)
		return 0;
	walk->frame = load_user(
		(walk->of.cframe ? load_user(walk->thread + walk->of.cframe) : walk->thread) +
		walk->of.frame);
	LOOP(next_python_frame, PYTHON_STEPS, &nothing);
	return walk->depth;
}

#endif
