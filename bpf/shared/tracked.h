/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What all programs share: the calibration that user space wrote, which cgroups are traced, the
 * count of lost records.
 *
 * The loader defines: TRACE_ALL (no filter), CGROUP_V1, TRACER_CPUS (possible CPUs),
 * TRACER_COMBINE_TICKS (how long a sum of charges may wait), TRACER_TICK_NS (the timer's),
 * TRACER_ROOTS and TRACER_WANTED_PATHS (room for what is asked for), PAGE_SIZE, the rings' sizes,
 * LEDGER_BY_FUNCTION where functions are hooked for it, and STACKS_BYTES where stacks are asked
 * for.
 */
#ifndef MEMCG_TRACER_TRACKED_H
#define MEMCG_TRACER_TRACKED_H

/* What can only be learnt by running on this kernel (bpf/probe.bpf.c); 0 = not known. */
struct calibration {
	u64 cgroup_root; /* struct cgroup_root of the memory controller's hierarchy */
	u64 regs_offset; /* from the bottom of a task's kernel stack to its struct pt_regs */
	u8 counter_index[CATEGORY_COUNT]; /* position + 1 in memcg_vmstats_percpu.state */
};

BPF_ARRAY(calibration, struct calibration, 1);
BPF_ARRAY(cpu_offsets, u64, TRACER_CPUS); /* what to add to a per-CPU pointer for that CPU's copy */
BPF_PERCPU_ARRAY(lost, u64, STREAM_COUNT);

/* `follow`: of enum follow. It holds for one generation (struct wanted). */
struct memcg_info {
	u64 cgroup_id;
	u32 follow;
	u32 generation;
};

/*
 * Cgroup ids that are traced with all below them, and whether that is decided (enum follow). User
 * space fills and prunes it; a cgroup that is made comes in here before its first charge
 * (follow_new in identity.bpf.c).
 */
BPF_HASH(roots, u64, u8, TRACER_ROOTS);

/*
 * What user space wants of cgroups to come. A generation ends when a cgroup is made, whose memcg
 * can have the address of an earlier one, and when user space changes `roots`: what was remembered
 * of a memcg by its address is then wrong.
 */
struct wanted {
	u32 generation;
	u32 is_open; /* some are wanted by what only user space knows: each new one is undecided */
};

BPF_ARRAY(wanted, struct wanted, 1);

struct cgroup_path {
	char text[TRACER_PATH_LEN];
};

BPF_HASH(wanted_paths, struct cgroup_path, u8,
	 TRACER_WANTED_PATHS); /* a cgroup made there is wanted */
BPF_TABLE("lru_hash", struct mem_cgroup *, struct memcg_info, memcgs, 16384);

/* memcg -> this CPU's counters when last looked at, by category, in the kernel's units. */
struct counters_seen {
	s64 values[CATEGORY_COUNT];
};

BPF_TABLE("percpu_hash", struct mem_cgroup *, struct counters_seen, counters_seen, 4096);

static __always_inline void count_lost_records(u32 stream, u64 records)
{
	u64 *count = lost.lookup(&stream);

	if (count)
		*count += records;
}

static __always_inline void count_lost(u32 stream)
{
	count_lost_records(stream, 1);
}

static __always_inline struct calibration *calibrated(void)
{
	u32 zero = 0;

	return calibration.lookup(&zero);
}

static __always_inline u32 this_generation(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	return now ? now->generation : 0;
}

static __always_inline void end_generation(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	if (now)
		__sync_fetch_and_add(&now->generation, 1);
}

/* By the roots that a cgroup is at or below: one that is decided counts more than one that is not.
 */
static __always_inline u8 follow_by_roots(struct cgroup *cgroup)
{
#ifdef TRACE_ALL
	return FOLLOW_YES;
#else
	u8 found = FOLLOW_NO;

	for (int depth = 0; depth < MAX_DEPTH; depth++) {
		u64 id = cgroup_id(cgroup);
		u8 *follow = roots.lookup(&id);

		if (follow && *follow == FOLLOW_YES)
			return FOLLOW_YES;
		if (follow)
			found = FOLLOW_UNDECIDED;
		cgroup = cgroup_parent(cgroup);
		if (!cgroup)
			break;
	}
	return found;
#endif
}

/* The id of a memcg and whether it is traced, remembered until that can be another answer. */
static __always_inline struct memcg_info *memcg_info(struct mem_cgroup *memcg)
{
	struct memcg_info *info = memcgs.lookup(&memcg);
	u32 generation =
		this_generation(); /* before looking: a change meanwhile makes the answer stale */

	if (!memcg || (info && info->generation == generation))
		return info;

	struct memcg_info fresh = {.generation = generation};
	struct cgroup *cgroup = READ(memcg, css.cgroup);

	fresh.cgroup_id = cgroup_id(cgroup);
	fresh.follow = follow_by_roots(cgroup);

	memcgs.update(&memcg, &fresh);
	return memcgs.lookup(&memcg);
}

static __always_inline bool is_traced(struct mem_cgroup *memcg)
{
#ifdef TRACE_ALL
	return true;
#else
	struct memcg_info *info = memcg_info(memcg);

	return info && info->follow;
#endif
}

#define STATE_ITEMS ARRAY_SIZE(((struct memcg_vmstats_percpu *)0)->state)

/* A memcg's own counters, in the kernel's order and units. */
struct memcg_counters {
	s64 state[TRACER_STATE_ITEMS];
};

BPF_PERCPU_ARRAY(one_cpu, struct memcg_counters, 1); /* scratch: too large for the stack */

/*
 * Sum a memcg's own counters over the CPUs: exact at this instant, with no flush awaited
 * (memory.stat lags until its next flush, mem_cgroup_flush_stats). Returns how many CPUs were read;
 * 0 = the counters cannot be found.
 */
static __always_inline u32 sum_counters(s64 *state, struct mem_cgroup *memcg)
{
	u32 zero = 0;
	u32 cpus = 0;
	struct memcg_counters *cpu_counters = one_cpu.lookup(&zero);
	char *base = (char *)READ(memcg, vmstats_percpu);

	if (!cpu_counters || !base)
		return 0;
	for (u32 cpu = 0; cpu < TRACER_CPUS; cpu++) {
		u32 key = cpu;
		u64 *offset = cpu_offsets.lookup(&key);

		if (!offset || !*offset)
			continue;

		struct memcg_vmstats_percpu *stats =
			(struct memcg_vmstats_percpu *)(base + *offset);

		bpf_probe_read_kernel(cpu_counters->state, sizeof(stats->state), &stats->state);
#pragma clang loop unroll(disable)
		for (u32 item = 0; item < STATE_ITEMS; item++)
			state[item] += cpu_counters->state[item];
		cpus++;
	}
	return cpus;
}

/* The registers that current's way into the kernel saved; NULL where that is not known, or for a
 * kernel thread. */
static __always_inline struct pt_regs *entry_registers(struct calibration *known)
{
	struct task_struct *task = current_task();
	char *stack = READ(task, stack);

	if (!known->regs_offset || !stack || READ(task, flags) & PF_KTHREAD)
		return NULL;
	return (struct pt_regs *)(stack + known->regs_offset);
}

/* The system call that these registers entered by, -1 where it was none. */
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

/* A system call's arguments (syscall(2)). */
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
	/* x0 is the result's place too: the call keeps what it was at entry. */
	return number ? READ(regs, regs[number]) : READ(regs, orig_x0);
#endif
}

#endif
