/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The system call that the current task is in: its number, its arguments, and its effect on the
 * page cache. The loader defines TRACER_X86_64 or TRACER_ARM64. Numbers are ABI
 * (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
 */
#ifndef MEMCG_TRACER_SYSCALLS_H
#define MEMCG_TRACER_SYSCALLS_H

#include "kernel.h"

enum activity {
	DOES_OTHER,
	DOES_READ,
	DOES_WRITE,
	DOES_COPY, /* reads a file and writes another */
	DOES_READ_SOMEHOW, /* its range is not a plain argument */
	DOES_ALLOCATE,
	DOES_CONTROL,
	DOES_READAHEAD,
	DOES_ADVISE,
	DOES_ADVISE_MEMORY,
	DOES_REMOVE,
};

/* Numbers of system calls, and the registers with the number and the user's instruction. */
#if defined(TRACER_X86_64)
#define NR(x86_64, arm64) x86_64
#define REGS_NUMBER orig_ax
#define REGS_IP ip
#elif defined(TRACER_ARM64)
#define NR(x86_64, arm64) arm64
#define REGS_NUMBER syscallno
#define REGS_IP pc
#endif

static __always_inline u32 syscall_activity(s64 number)
{
	switch (number) {
	case NR(0, 63): /* read */
	case NR(17, 67): /* pread64 */
	case NR(40, 71): /* sendfile */
		return DOES_READ;
	case NR(19, 65): /* readv */
	case NR(59, 221): /* execve */
	case NR(275, 76): /* splice */
	case NR(295, 69): /* preadv */
	case NR(322, 281): /* execveat */
	case NR(327, 286): /* preadv2 */
		return DOES_READ_SOMEHOW;
	case NR(16, 29): /* ioctl */
		return DOES_CONTROL;
	case NR(285, 47): /* fallocate */
		return DOES_ALLOCATE;
	case NR(1, 64): /* write */
	case NR(18, 68): /* pwrite64 */
	case NR(20, 66): /* writev */
	case NR(296, 70): /* pwritev */
	case NR(328, 287): /* pwritev2 */
		return DOES_WRITE;
	case NR(326, 285): /* copy_file_range */
		return DOES_COPY;
	case NR(187, 213): /* readahead */
		return DOES_READAHEAD;
	case NR(28, 233): /* madvise */
	case NR(440, 440): /* process_madvise */
		return DOES_ADVISE_MEMORY;
	case NR(221, 223): /* fadvise64 */
		return DOES_ADVISE;
	case NR(3, 57): /* close */
	case NR(76, 45): /* truncate */
	case NR(77, 46): /* ftruncate */
	case NR(166, 39): /* umount2 */
	case NR(257, 56): /* openat */
	case NR(263, 35): /* unlinkat */
	case NR(264, 38): /* renameat */
	case NR(316, 276): /* renameat2 */
	case NR(437, 437): /* openat2 */
#if defined(TRACER_X86_64)
	case 2: /* open */
	case 82: /* rename */
	case 85: /* creat */
	case 87: /* unlink */
#endif
		return DOES_REMOVE;
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
	case NR(17, 67): /* pread64 */
		return (struct reading){.file = 0, .count = 2, .position = 3};
	case NR(40, 71): /* sendfile */
		return (struct reading){
			.file = 1, .count = 3, .position = 2, .position_is_pointer = 1};
	}
	return (struct reading){.file = 0, .count = 2, .position = NO_ARGUMENT};
}

/* An advice of madvise(2) (include/uapi/asm-generic/mman-common.h), and its position. */
#define MADV_REMOVE 9
#define MADVISE_ADVICE 2

/* Return the registers saved when the current task entered the kernel; NULL: a kernel thread. */
static __always_inline struct pt_regs *entry_registers(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();

	return LOAD(task, flags) & PF_KTHREAD ? NULL : (struct pt_regs *)bpf_task_pt_regs(task);
}

/* Return the number of the system call at which these registers were saved; -1 if it was none. */
static __always_inline s64 syscall_number(struct pt_regs *regs)
{
	return regs ? (s64)LOAD(regs, REGS_NUMBER) : -1;
}

#define ENOSYS 38 /* include/uapi/asm-generic/errno.h: the result until there is one */

/*
 * Return whether a system call has its result in the registers, which may be those of another task.
 * arm64 does not tell a call that returned its first argument from one that goes on.
 */
static __always_inline bool is_call_over(struct pt_regs *regs)
{
#if defined(TRACER_X86_64)
	return (s64)READ(regs, ax) != -ENOSYS;
#elif defined(TRACER_ARM64)
	return READ(regs, regs[0]) != READ(regs, orig_x0);
#endif
}

static __always_inline u64 user_ip(struct pt_regs *regs)
{
	return regs ? LOAD(regs, REGS_IP) : 0;
}

/* Return an argument of the system call (syscall(2)). */
static __always_inline u64 syscall_argument(struct pt_regs *regs, u32 number)
{
#if defined(TRACER_X86_64)
	switch (number) {
	case 0:
		return LOAD(regs, di);
	case 1:
		return LOAD(regs, si);
	case 2:
		return LOAD(regs, dx);
	}
	return LOAD(regs, r10);
#elif defined(TRACER_ARM64)
	/* The result overwrites x0, so the kernel keeps its value at entry in orig_x0. */
	return number ? READ(regs, regs[number]) : LOAD(regs, orig_x0);
#endif
}

#endif
