/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The system call that the current task is in: its number, its arguments, and its effect on the
 * page cache. The loader defines TRACER_X86_64 or TRACER_ARM64. Numbers are ABI
 * (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
 */
#ifndef MEMCG_TRACER_SYSCALLS_H
#define MEMCG_TRACER_SYSCALLS_H

#include "tracked.h"

enum activity {
	DOES_OTHER,
	DOES_READ,
	DOES_WRITE,
	DOES_READ_SOMEHOW, /* its range is not a plain argument */
	DOES_ALLOCATE,
	DOES_CONTROL,
	DOES_READAHEAD,
	DOES_ADVISE,
	DOES_ADVISE_MEMORY,
	DOES_REMOVE,
};

static __always_inline u32 syscall_activity(s64 number)
{
	switch (number) {
#if defined(TRACER_X86_64)
	case 0: /* read */
	case 17: /* pread64 */
	case 40: /* sendfile */
		return DOES_READ;
	case 19: /* readv */
	case 59: /* execve */
	case 275: /* splice */
	case 295: /* preadv */
	case 322: /* execveat */
	case 327: /* preadv2 */
		return DOES_READ_SOMEHOW;
	case 16: /* ioctl */
		return DOES_CONTROL;
	case 285: /* fallocate */
		return DOES_ALLOCATE;
	case 1: /* write */
	case 18: /* pwrite64 */
	case 20: /* writev */
	case 296: /* pwritev */
	case 326: /* copy_file_range */
	case 328: /* pwritev2 */
		return DOES_WRITE;
	case 187: /* readahead */
		return DOES_READAHEAD;
	case 28: /* madvise */
	case 440: /* process_madvise */
		return DOES_ADVISE_MEMORY;
	case 221: /* fadvise64 */
		return DOES_ADVISE;
	case 2: /* open */
	case 3: /* close */
	case 76: /* truncate */
	case 77: /* ftruncate */
	case 82: /* rename */
	case 85: /* creat */
	case 87: /* unlink */
	case 166: /* umount2 */
	case 257: /* openat */
	case 263: /* unlinkat */
	case 264: /* renameat */
	case 316: /* renameat2 */
	case 437: /* openat2 */
		return DOES_REMOVE;
#elif defined(TRACER_ARM64)
	case 63: /* read */
	case 67: /* pread64 */
	case 71: /* sendfile */
		return DOES_READ;
	case 65: /* readv */
	case 69: /* preadv */
	case 76: /* splice */
	case 221: /* execve */
	case 281: /* execveat */
	case 286: /* preadv2 */
		return DOES_READ_SOMEHOW;
	case 29: /* ioctl */
		return DOES_CONTROL;
	case 47: /* fallocate */
		return DOES_ALLOCATE;
	case 64: /* write */
	case 66: /* writev */
	case 68: /* pwrite64 */
	case 70: /* pwritev */
	case 285: /* copy_file_range */
	case 287: /* pwritev2 */
		return DOES_WRITE;
	case 213: /* readahead */
		return DOES_READAHEAD;
	case 233: /* madvise */
	case 440: /* process_madvise */
		return DOES_ADVISE_MEMORY;
	case 223: /* fadvise64 */
		return DOES_ADVISE;
	case 35: /* unlinkat */
	case 38: /* renameat */
	case 39: /* umount2 */
	case 45: /* truncate */
	case 46: /* ftruncate */
	case 56: /* openat */
	case 57: /* close */
	case 276: /* renameat2 */
	case 437: /* openat2 */
		return DOES_REMOVE;
#endif
	}
	return DOES_OTHER;
}

/* The positions of the arguments of a reading call. NO_ARGUMENT: the call has no such argument. */
struct reading {
	u8 file;
	u8 count;
	u8 position;
	u8 position_is_pointer;
};

#define NO_ARGUMENT 255

static __always_inline struct reading reading_arguments(s64 number)
{
	switch (number) {
#if defined(TRACER_X86_64)
	case 17: /* pread64 */
#elif defined(TRACER_ARM64)
	case 67:
#endif
		return (struct reading){.file = 0, .count = 2, .position = 3};
#if defined(TRACER_X86_64)
	case 40: /* sendfile */
#elif defined(TRACER_ARM64)
	case 71:
#endif
		return (struct reading){
			.file = 1, .count = 3, .position = 2, .position_is_pointer = 1};
	}
	return (struct reading){.file = 0, .count = 2, .position = NO_ARGUMENT};
}

/* An advice of madvise(2) (include/uapi/asm-generic/mman-common.h), and its position. */
#define MADV_REMOVE 9
#define MADVISE_ADVICE 2

/*
 * Return the registers saved when the current task entered the kernel. NULL: their place is not
 * known, or the task is a kernel thread.
 */
static __always_inline struct pt_regs *entry_registers(struct calibration *known)
{
	struct task_struct *task = current_task();
	char *stack = READ(task, stack);

	if (!known->regs_offset || !stack || READ(task, flags) & PF_KTHREAD)
		return NULL;
	return (struct pt_regs *)(stack + known->regs_offset);
}

/* Return the number of the system call at which these registers were saved; -1 if it was none. */
static __always_inline s64 syscall_number(struct pt_regs *regs)
{
	if (!regs)
		return -1;
#if defined(HAS_pt_regs_orig_ax)
	return (s64)READ(regs, orig_ax);
#elif defined(HAS_pt_regs_syscallno)
	return (s64)(s32)READ(regs, syscallno);
#else
	return -1;
#endif
}

static __always_inline u64 user_ip(struct pt_regs *regs)
{
#if defined(TRACER_X86_64)
	return regs ? READ(regs, ip) : 0;
#elif defined(TRACER_ARM64)
	return regs ? READ(regs, pc) : 0;
#endif
}

/* Return an argument of the system call (syscall(2)). */
static __always_inline u64 syscall_argument(struct pt_regs *regs, u32 number)
{
#if defined(TRACER_X86_64)
	switch (number) {
	case 0:
		return READ(regs, di);
	case 1:
		return READ(regs, si);
	case 2:
		return READ(regs, dx);
	}
	return READ(regs, r10);
#elif defined(TRACER_ARM64)
	/* The result overwrites x0, so the kernel keeps its value at entry in orig_x0. */
	return number ? READ(regs, regs[number]) : READ(regs, orig_x0);
#endif
}

#endif
