/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Access to the kernel's structures. Their layout comes from the running kernel's BTF: the loader
 * puts it before all sources (tracer/kernel/struct_header.py).
 */
#ifndef MEMCG_TRACER_KERNEL_H
#define MEMCG_TRACER_KERNEL_H

#include "subprograms.h"

/*
 * Read a member of a kernel object. The value is 0 if the memory cannot be read: a load then gives
 * 0 (BPF_PROBE_MEM in kernel/bpf/verifier.c), and the helper clears the bytes that it cannot read.
 */
#define READ(ptr, member)                                                           \
	({                                                                          \
		typeof((ptr)->member) value_;                                       \
		read_kernel(&value_, sizeof(value_), (const void *)&(ptr)->member); \
		value_;                                                             \
	})

#ifdef KERNEL_FUNC_bpf_rdonly_cast
/* bpf_rdonly_cast(): let the verifier take an address for a pointer to a type. It is a move. */
static void *(*cast)(u64 from, u32 type) = (void *)(u64)KERNEL_FUNC_bpf_rdonly_cast;

/*
 * Load a number from any address, in one instruction: a call of the helper takes 45 ns where the
 * kernel makes returns safe from speculation (spec_rstack_overflow). The type is a structure whose
 * first member is a number of 8 bytes.
 */
#define LOAD_AT(type, from)                                                       \
	({                                                                        \
		u64 loaded_;                                                      \
		asm volatile("%0 = *(" #type " *)(%1 + 0)"                        \
			     : "=r"(loaded_)                                      \
			     : "r"(cast((u64)(from), KERNEL_STRUCT_timespec64))); \
		loaded_;                                                          \
	})
#endif

/*
 * Let the verifier take a pointer to a `struct type` for one that it does not trust. Members that
 * are loaded from it cost the same. But for each pointer that is loaded from one that it trusts,
 * the verifier searches all of the kernel's types for four names, which took 1 ms
 * (btf_nested_type_is_trusted in kernel/bpf/btf.c).
 */
#ifdef KERNEL_FUNC_bpf_rdonly_cast
#define UNTRUSTED(type, pointer) ((struct type *)cast((u64)(pointer), KERNEL_STRUCT_##type))
#else
#define UNTRUSTED(type, pointer) ((struct type *)(pointer))
#endif

static __always_inline void read_kernel(void *into, u32 bytes, const void *from)
{
#ifdef KERNEL_FUNC_bpf_rdonly_cast
	u64 number;

	switch (bytes) {
	case 8:
		number = LOAD_AT(u64, from);
		break;
	case 4:
		number = LOAD_AT(u32, from);
		break;
	case 2:
		number = LOAD_AT(u16, from);
		break;
	case 1:
		number = LOAD_AT(u8, from);
		break;
	default:
		bpf_probe_read_kernel(into, bytes, from);
		return;
	}
	__builtin_memcpy(into, &number, bytes); /* all supported machines are little-endian */
#else
	bpf_probe_read_kernel(into, bytes, from);
#endif
}

/*
 * Load a number or pointer that is a member of a kernel object. The verifier must know the type of
 * the pointer: an argument of a tracepoint, current_task(), or a result of LOAD. It costs one
 * instruction on every kernel. The value is 0 if the address cannot be read.
 *
 * BCC rewrites what looks like a dereference of the pointer into a call of the helper. So the load
 * is in assembly, and types are taken from a null pointer.
 */
#define LOAD(ptr, member)                                                      \
	({                                                                     \
		__auto_type from_ = (ptr);                                     \
		typedef typeof(from_) object_;                                 \
		typedef typeof(((object_)0)->member) member_;                  \
		u64 loaded_;                                                   \
		_Static_assert(sizeof(member_) <= 8, "a number or a pointer"); \
		switch (sizeof(member_)) {                                     \
		case 8:                                                        \
			LOAD_(u64, member);                                    \
			break;                                                 \
		case 4:                                                        \
			LOAD_(u32, member);                                    \
			break;                                                 \
		case 2:                                                        \
			LOAD_(u16, member);                                    \
			break;                                                 \
		default:                                                       \
			LOAD_(u8, member);                                     \
		}                                                              \
		(member_) loaded_;                                             \
	})

#define LOAD_(type, member)                         \
	asm volatile("%0 = *(" #type " *)(%1 + %2)" \
		     : "=r"(loaded_)                \
		     : "r"(from_), "i"(offsetof(typeof(*(object_)0), member)))

/*
 * Load the bytes that hold a bitfield of `struct type`, and keep its bits, at their place. The
 * result is 0 if and only if the bitfield is 0.
 */
#define LOAD_BITS(ptr, type, member) (LOAD(ptr, bits_of_##member) & KERNEL_BITS_##type##_##member)

/*
 * A program of a tracepoint, which the loader attaches by its name (tracer/kernel/probes.py), or a
 * program that user space runs. The verifier knows the types of a tracepoint's arguments. It allows
 * no arithmetic on pointers except with constants.
 */
#define PROGRAM(name) int name(struct bpf_raw_tracepoint_args *ctx)

/*
 * Programs at the entry or the exit of a kernel function differ in how they get its arguments. So a
 * hook is a function of a `struct call`, and the loader adds a line with one of the macros below,
 * which makes a program of it for the chosen way. `count` is the number of arguments of the kernel
 * function.
 */
#define CALL_ARGS 4

struct call {
	u64 args[CALL_ARGS];
	u64 result; /* at the exit */
	void *ctx; /* of the program */
};

#define FENTRY(hook, count)                            \
	int fentry_##hook(u64 *ctx)                    \
	{                                              \
		struct call call = {.ctx = ctx};       \
		call_of_trampoline(&call, ctx, count); \
		return hook(&call);                    \
	}

#define FEXIT(hook, count)                                                       \
	int fexit_##hook(u64 *ctx)                                               \
	{                                                                        \
		struct call call = {.ctx = ctx};                                 \
		call_of_trampoline(&call, ctx, count);                           \
		bpf_probe_read_kernel(&call.result, sizeof(u64), ctx + (count)); \
		return hook(&call);                                              \
	}

#define KPROBE(hook, count)                      \
	int kprobe_##hook(struct pt_regs *ctx)   \
	{                                        \
		struct call call = {.ctx = ctx}; \
		call_of_registers(&call, ctx);   \
		return hook(&call);              \
	}

/* Only the result of a call is in the registers at its exit. */
#define KRETPROBE(hook, count)                    \
	int kretprobe_##hook(struct pt_regs *ctx) \
	{                                         \
		struct call call = {.ctx = ctx};  \
		call.result = result_of(ctx);     \
		return hook(&call);               \
	}

/*
 * The context of a trampoline is an array: the arguments, followed by the result. A helper reads
 * it, since the verifier allows no arithmetic on pointers to kernel types.
 */
static __always_inline void call_of_trampoline(struct call *call, u64 *ctx, u32 count)
{
	bpf_probe_read_kernel(call->args, (count < CALL_ARGS ? count : CALL_ARGS) * sizeof(u64),
			      ctx);
}

/* Arguments and result, by the calling convention of the architecture. */
static __always_inline void call_of_registers(struct call *call, struct pt_regs *regs)
{
#if defined(TRACER_X86_64)
	call->args[0] = READ(regs, di);
	call->args[1] = READ(regs, si);
	call->args[2] = READ(regs, dx);
	call->args[3] = READ(regs, cx);
#elif defined(TRACER_ARM64)
	bpf_probe_read_kernel(call->args, sizeof(call->args), regs->regs);
#endif
}

static __always_inline u64 result_of(struct pt_regs *regs)
{
#if defined(TRACER_X86_64)
	return READ(regs, ax);
#elif defined(TRACER_ARM64)
	return READ(regs, regs[0]);
#endif
}

/* include/linux/memcontrol.h: the low bits of memcg_data are flags for the type of its pointer. */
#define MEMCG_DATA_OBJEXTS 1
#define MEMCG_DATA_KMEM 2
#define MEMCG_DATA_FLAGS_MASK 7

/* include/linux/sched.h: these values have never changed. */
#define PF_EXITING 0x00000004
#define PF_MEMALLOC 0x00000800
#define PF_KSWAPD 0x00020000
#define PF_KTHREAD 0x00200000

/*
 * Set an object to zero by reading it from address 0: LLVM's BPF target has no memset for large
 * objects.
 */
#define CLEAR(ptr) bpf_probe_read_kernel(ptr, sizeof(*(ptr)), NULL)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define MAX_DEPTH 16 /* nested cgroups that are examined */

static __always_inline struct task_struct *current_task(void)
{
	return UNTRUSTED(task_struct, bpf_get_current_task_btf());
}

static __always_inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* Return the start of a task's process, by CLOCK_BOOTTIME; execve() keeps it (de_thread). */
static __always_inline u64 process_start(struct task_struct *task)
{
	return READ(READ(task, group_leader), start_boottime);
}

/* Return an open file of the current task; NULL if the descriptor is not open. */
static __always_inline struct file *file_of(u32 fd)
{
	struct file **table = LOAD(LOAD(LOAD(current_task(), files), fdt), fd);
	struct file *file = NULL;

	bpf_probe_read_kernel(&file, sizeof(file), table + fd);
	return file;
}

/* `parent` until 633488947ef6 ("kernfs: Use RCU to access kernfs_node::parent."), v6.15. */
#ifdef HAS_kernfs_node___parent
#define KERNFS_PARENT __parent
#else
#define KERNFS_PARENT parent
#endif

/* Return the id of a cgroup: the inode number of its directory. */
static __always_inline u64 cgroup_id(struct cgroup *cgroup)
{
	return READ(READ(cgroup, kn), id);
}

/* Return the id of a memcg: the inode number of its cgroup's directory, on v1 and v2. */
static __always_inline u64 memcg_id(struct mem_cgroup *memcg)
{
	return cgroup_id(READ(memcg, css.cgroup));
}

/* Return the memcg that contains a css, as mem_cgroup_from_css() does (memcontrol.h). */
static __always_inline struct mem_cgroup *memcg_from_css(struct cgroup_subsys_state *css)
{
	return css ? (struct mem_cgroup *)((char *)css - offsetof(struct mem_cgroup, css)) : NULL;
}

static __always_inline struct mem_cgroup *memcg_parent(struct mem_cgroup *memcg)
{
	return memcg_from_css(READ(memcg, css.parent));
}

static __always_inline struct cgroup *cgroup_parent(struct cgroup *cgroup)
{
	struct cgroup_subsys_state *css = READ(cgroup, self.parent);

	return css ? (struct cgroup *)((char *)css - offsetof(struct cgroup, self)) : NULL;
}

static __always_inline struct mem_cgroup *task_memcg(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);

	return memcg_from_css(READ(set, subsys[KERNEL_ENUM_memory_cgrp_id]));
}

/* Return the memory css of a task whose type the verifier knows: this takes two loads. */
static __always_inline struct cgroup_subsys_state *memory_css(struct task_struct *task)
{
	struct css_set *set = LOAD(task, cgroups);

	return LOAD(set, subsys[KERNEL_ENUM_memory_cgrp_id]);
}

/* Return the serial number of a css, which no other css ever has. */
static __always_inline u64 css_serial(struct cgroup_subsys_state *css)
{
	return LOAD(css, serial_nr);
}

/*
 * Return the memcg to which a task's allocations are charged: set_active_memcg() overrides its own.
 */
static __always_inline struct mem_cgroup *charged_memcg(struct task_struct *task)
{
	struct mem_cgroup *active = READ(task, active_memcg);

	return active ? active : task_memcg(task);
}

/*
 * Return the memcg of an lruvec, which is a member of struct mem_cgroup_per_node (mem_cgroup_lruvec
 * in include/linux/memcontrol.h).
 */
static __always_inline struct mem_cgroup *memcg_of_lruvec(u64 lruvec)
{
	return READ((struct mem_cgroup_per_node *)(lruvec -
						   offsetof(struct mem_cgroup_per_node, lruvec)),
		    memcg);
}

static __always_inline struct mem_cgroup *memcg_of_node(u64 node)
{
	return READ((struct mem_cgroup_per_node *)node, memcg);
}

/*
 * True if every folio is charged through an obj_cgroup, not only folios of kernel memory: since
 * "mm: memcontrol: eliminate the problem of dying memory cgroup for LRU folios", v7.1. An earlier
 * change of the same series, 01b9da291c49 ("mm: memcontrol: convert objcg to be per-memcg per-node
 * type"), added the member by which such kernels are recognised.
 */
#ifdef HAS_obj_cgroup_is_root
#define MEMCG_DATA_IS_OBJCG true
#else
#define MEMCG_DATA_IS_OBJCG false
#endif

/* Return the owner of a page-cache folio, from its memcg_data; NULL if it has none. */
static __always_inline struct mem_cgroup *folio_memcg(u64 data)
{
	u64 pointer = data & ~(u64)MEMCG_DATA_FLAGS_MASK;

	if (!pointer || data & MEMCG_DATA_OBJEXTS)
		return NULL;
	if (MEMCG_DATA_IS_OBJCG || data & MEMCG_DATA_KMEM)
		return READ((struct obj_cgroup *)pointer, memcg);
	return (struct mem_cgroup *)pointer;
}

/*
 * The order of a large folio, which is in the first tail page: in the low byte of the flags since
 * ebc1baf5c9b4 ("mm: free up a word in the first tail page"), v6.7, and in a byte of its own
 * before. `read` is LOAD or READ.
 */
#ifdef HAS_folio__folio_order
#define FOLIO_ORDER(read, folio) read(folio, _folio_order)
#else
#define FOLIO_ORDER(read, folio) (read(folio, _flags_1) & 0xff)
#endif

/* Return the number of pages of a folio. A large folio has PG_head set. */
static __always_inline u32 folio_nr_pages(struct folio *folio)
{
	if (!(LOAD(folio, flags) & (1UL << KERNEL_ENUM_PG_head)))
		return 1;
	return 1U << FOLIO_ORDER(LOAD, folio);
}

struct counter {
	u64 usage_pages;
	u64 limit_pages;
};

static __always_inline struct counter read_counter(struct page_counter *counter)
{
	struct counter value = {
		.usage_pages = READ(counter, usage),
		.limit_pages = READ(counter, max),
	};
	return value;
}

#endif
