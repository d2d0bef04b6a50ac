// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What is in memory now: one pass over the kernel's array of struct page, by page frame number.
 * User space runs these programs (BPF_PROG_TEST_RUN), with their arguments in ctx->args. They take
 * no lock, and a folio is met at most once, whatever list it is on; so are the pages of removed
 * cgroups and of slab, which are on no list.
 *
 * A page may change while it is read. What is freed and charged again during the pass, or moved to
 * another frame (compaction), may be met twice or not at all. An address that was read from such a
 * page may point to other memory by now: what is not a memcg, as the subsystem of its css shows, is
 * left out.
 */

#include "../shared/paths.h"
#include "page_kinds.h"

#define MOST_AMOUNTS 262144
#define MOST_TOTALS 65536
#define MOST_CGROUPS 65536

#define SCAN_OBJECTS 1 /* of `wants`: tell files and kmem_caches apart */
#define SCAN_SLAB 2 /* look at each object of slab */
#define SCAN_SOME 4 /* only cgroups at or below those in `selected` */

/* Memory of one kind; `address` is of the inode or kmem_cache, and in `totals` of the memcg. */
struct amount {
	u64 bytes;
	u64 dirty_bytes;
	u64 writeback_bytes;
	u64 active_bytes;
	u64 unevictable_bytes;
	u64 objects;
	u64 address;
};

/* Whose memory, of which kind (enum contents), and in what: inode_id, or a kmem_cache; 0 = all. */
struct owner {
	u64 cgroup_id;
	u64 object;
	u64 kind;
};

BPF_F_TABLE("hash", struct owner, struct amount, amounts, MOST_AMOUNTS, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct owner, struct amount, totals, MOST_TOTALS, BPF_F_NO_PREALLOC);

/* Id of a cgroup -> 1: it is wanted, 0: it is not. User space fills in the topmost ones. */
BPF_F_TABLE("hash", u64, u8, selected, MOST_CGROUPS, BPF_F_NO_PREALLOC);

#define LOST_AMOUNTS 0
#define LOST_TOTALS 1
BPF_ARRAY(unmapped, u64, 2); /* bytes for which a map had no room */

/* A pass, as far as one run takes it. */
struct scan {
	u64 pages; /* the array of struct page */
	u64 pfn;
	u64 end;
	u64 until_ns;
	u64 wants;
	u64 subsystem; /* &memory_cgrp_subsys */
	u64 unchecked; /* turns since the clock was read */

	/* The slab whose objects are looked at. */
	u64 vector; /* of their owners */
	u64 stride;
	u64 objects; /* that are left */
	u64 object_bytes;
	u64 cache;

	/* What the last turns met, before it is added to the maps. */
	u64 memcg;
	u64 is_wanted;
	u64 kind; /* of the next owner, for change_owner */
	u64 address;
	struct owner owner;
	struct amount amount;
};

#define TURNS_UNCHECKED 64 /* reading the clock takes as long as a turn, or longer */

static __always_inline void count_unmapped(u32 which, u64 bytes)
{
	u64 *count = unmapped.lookup(&which);

	if (count)
		*count += bytes;
}

static __always_inline void add(struct amount *to, struct amount *more)
{
	to->bytes += more->bytes;
	to->dirty_bytes += more->dirty_bytes;
	to->writeback_bytes += more->writeback_bytes;
	to->active_bytes += more->active_bytes;
	to->unevictable_bytes += more->unevictable_bytes;
	to->objects += more->objects;
}

static __always_inline u64 flagged(u64 flags, u32 flag, u64 bytes)
{
	return flags & (1UL << flag) ? bytes : 0;
}

/* The pass; one program runs at a time. On the stack, the verifier would follow its members. */
BPF_ARRAY(scans, struct scan, 1);

static __always_inline struct scan *the_scan(void)
{
	u32 zero = 0;

	return scans.lookup(&zero);
}

/* Add what was met to the maps. */
SUBPROGRAM(flush)
{
	struct scan *scan = the_scan();
	struct amount *known;

	if (!scan || !scan->amount.bytes)
		return 0;

	struct owner whole = {.cgroup_id = scan->owner.cgroup_id, .kind = scan->owner.kind};

	scan->amount.address = scan->memcg;
	known = totals.lookup(&whole);
	if (known)
		add(known, &scan->amount);
	else if (totals.update(&whole, &scan->amount))
		count_unmapped(LOST_TOTALS, scan->amount.bytes);
	scan->amount.address = scan->address;
	if (scan->owner.object && scan->wants & SCAN_OBJECTS) {
		known = amounts.lookup(&scan->owner);
		if (known)
			add(known, &scan->amount);
		else if (amounts.update(&scan->owner, &scan->amount))
			count_unmapped(LOST_AMOUNTS, scan->amount.bytes);
	}
	CLEAR(&scan->amount);
	return 0;
}

/* A search for the nearest cgroup that is decided. */
struct decision {
	struct mem_cgroup *at;
	u64 is_wanted;
};

SUBPROGRAM(look_for_selected)
{
	struct decision *decision = (struct decision *)SECOND_ARGUMENT;
	u64 id = memcg_id(decision->at);
	u8 *known = selected.lookup(&id);

	if (known) {
		decision->is_wanted = *known;
		return 1;
	}
	decision->at = memcg_parent(decision->at);
	return decision->at ? 0 : 1;
}

static __always_inline u64 decide(struct mem_cgroup *memcg, u64 id)
{
	struct decision decision = {.at = memcg};
	u8 *known = selected.lookup(&id), is_wanted;

	if (known)
		return *known;
	LOOP(look_for_selected, MAX_DEPTH, &decision);
	is_wanted = decision.is_wanted;
	selected.update(&id, &is_wanted);
	return is_wanted;
}

/* Begin with another owner, kind or object. The arguments are the memcg and the object's address.
 */
SUBPROGRAM(change_owner)
{
	u64 memcg = FIRST_ARGUMENT, address = SECOND_ARGUMENT;
	struct scan *scan = the_scan();

	if (!scan)
		return 0;
	CALL(flush, 0, 0);
	if (scan->memcg != memcg) {
		scan->memcg = memcg;
		scan->owner.cgroup_id = memcg_id((struct mem_cgroup *)memcg);
		scan->is_wanted = (u64)READ((struct mem_cgroup *)memcg, css.ss) == scan->subsystem;
		if (scan->is_wanted && scan->wants & SCAN_SOME)
			scan->is_wanted = decide((struct mem_cgroup *)memcg, scan->owner.cgroup_id);
	}
	if (!scan->is_wanted)
		return 0;
	scan->owner.kind = scan->kind;
	scan->address = address;
	scan->owner.object =
		scan->kind == CONTENTS_SLAB ? address : inode_id((struct inode *)address);
	return 0;
}

static __always_inline void take(struct scan *scan, u64 memcg, u64 kind, u64 address, u64 bytes,
				 u64 flags)
{
	if (scan->memcg == memcg && !scan->is_wanted)
		return;
	if (scan->memcg != memcg || scan->owner.kind != kind || scan->address != address) {
		scan->kind = kind;
		CALL(change_owner, memcg, address);
	}
	if (!scan->is_wanted)
		return;
	scan->amount.bytes += bytes;
	scan->amount.objects++;
	scan->amount.dirty_bytes += flagged(flags, KERNEL_ENUM_PG_dirty, bytes);
	scan->amount.writeback_bytes += flagged(flags, KERNEL_ENUM_PG_writeback, bytes);
	scan->amount.active_bytes += flagged(flags, KERNEL_ENUM_PG_active, bytes);
	scan->amount.unevictable_bytes += flagged(flags, KERNEL_ENUM_PG_unevictable, bytes);
}

struct pointer_word {
	struct obj_cgroup *pointer;
};

/* Take the next object of the slab, if it has an owner. */
static __always_inline void scan_object(struct scan *scan)
{
	struct obj_cgroup *objcg = READ((struct pointer_word *)scan->vector, pointer);

	scan->vector += scan->stride;
	scan->objects--;
	if (!objcg)
		return;
	take(scan, (u64)READ(objcg, memcg), CONTENTS_SLAB, scan->cache, scan->object_bytes, 0);
}

#ifdef HAS_slab_objects
#define SLAB_OBJECTS_SHIFT __builtin_ctzll(KERNEL_BITS_slab_objects)

/*
 * Begin with the objects of a slab. The vector of their owners has pointers; since 21c690a349ba
 * ("mm: introduce slabobj_ext to support slab object extensions"), v6.10, structures that begin
 * with a pointer; and since 7a8e71bc619d ("mm/slab: use stride to access slabobj_ext"), v7.0, with
 * a distance between them that the slab has.
 */
static __always_inline void begin_slab(struct scan *scan, u64 address, u64 data)
{
	struct slab *slab = (struct slab *)address;
	struct kmem_cache *cache = READ(slab, slab_cache);
	u64 objects =
		(READ(slab, bits_of_objects) & KERNEL_BITS_slab_objects) >> SLAB_OBJECTS_SHIFT;

	scan->vector = data & ~(u64)MEMCG_DATA_FLAGS_MASK;
#if defined(HAS_slab_stride)
	scan->stride = READ(slab, stride);
#elif defined(HAS_slabobj_ext_objcg) || defined(HAS_slabobj_ext__objcg)
	scan->stride = sizeof(struct slabobj_ext);
#else
	scan->stride = sizeof(struct obj_cgroup *);
#endif
	scan->cache = (u64)cache;
	/* obj_full_size() in mm/memcontrol.c: the owner's pointer is charged as well. */
	scan->object_bytes = READ(cache, size) + sizeof(struct obj_cgroup *);
	/* A slab loses its vector before its pages are freed, and used otherwise. */
	if (READ((struct folio *)address, memcg_data) == data)
		scan->objects = objects;
}
#endif

/* Take a folio that is charged to a cgroup. */
static __always_inline void take_folio(struct scan *scan, struct folio *folio, u64 data, u64 flags,
				       u32 type, u64 bytes)
{
	u64 memcg = (u64)folio_memcg(data), mapping, address = 0, kind;

	if (memcg == scan->memcg && !scan->is_wanted)
		return; /* its mapping lies elsewhere in memory, and takes as long as pages */
	mapping = (u64)READ(folio, mapping);
	if (has_type(type, TYPE_HUGETLB)) {
		kind = CONTENTS_HUGETLB;
	} else if (data & MEMCG_DATA_KMEM) {
		kind = has_type(type, TYPE_LARGE_KMALLOC) ? CONTENTS_SLAB : CONTENTS_KERNEL;
	} else if (mapping & MAPPING_ANON) {
		kind = CONTENTS_ANON;
	} else if (mapping & ~(u64)MAPPING_FLAGS) {
		kind = flags & (1UL << KERNEL_ENUM_PG_swapbacked) ? CONTENTS_SHMEM : CONTENTS_FILE;
		address = (u64)READ((struct address_space *)mapping, host);
	} else {
		return; /* it is being added, removed or freed: no counter has it */
	}
	if (kind !=
	    CONTENTS_FILE) /* the kernel counts neither for shmem, and for anon only in swap */
		flags &= ~(1UL << KERNEL_ENUM_PG_dirty | 1UL << KERNEL_ENUM_PG_writeback);
	take(scan, memcg, kind, address, bytes, flags);
}

#define PAGES_A_TURN 8 /* a turn's call and return take longer than a page without an owner */

/*
 * Take the next page that has an owner, if it is among a few pages, or the next object of a slab.
 * Return 1 at the end of the run.
 */
SUBPROGRAM(scan_next)
{
	struct scan *scan = the_scan();
	u64 page, pfn, end, flags, data, order, pages;
	bool is_owned = false;
	struct folio *folio;

	if (!scan)
		return 1;
	scan->unchecked++;
	if (scan->objects) {
		scan_object(scan);
		return 0;
	}
	pfn = scan->pfn;
	end = scan->end;
	pages = scan->pages;
	if (pfn >= end)
		return 1;
	if (scan->unchecked >= TURNS_UNCHECKED) {
		scan->unchecked = 0;
		if (bpf_ktime_get_ns() >= scan->until_ns)
			return 1;
	}
	for (u32 number = 0; number < PAGES_A_TURN && pfn < end && !is_owned; number++) {
		page = pages + pfn * sizeof(struct page);
		folio = (struct folio *)page;
		flags = READ((struct page_words *)page, flags);
		data = READ(folio, memcg_data);
		order = 0;
		if (flags & (1UL << KERNEL_ENUM_PG_head)) {
			order = FOLIO_ORDER(READ, folio);
			order = order <= MOST_FOLIO_ORDER ? order : 0;
		} else if (!data && is_free_block(READ((struct page *)page, page_type))) {
			order = READ((struct page *)page, private);
			order = order <= MOST_FREE_ORDER ? order : 0;
		}
		pfn += 1UL << order;
		is_owned = data & ~(u64)MEMCG_DATA_FLAGS_MASK &&
			   !(READ((struct page_words *)page, head) & 1);
	}
	scan->pfn = pfn;
	if (!is_owned)
		return 0;
	if (data & MEMCG_DATA_OBJEXTS) {
#ifdef HAS_slab_objects
		if (scan->wants & SCAN_SLAB)
			begin_slab(scan, page, data);
#endif
		return 0;
	}
	take_folio(scan, folio, data, flags, READ((struct page *)page, page_type),
		   PAGE_SIZE << order);
	return 0;
}

#define MOST_TURNS (1 << 20)

/*
 * Scan pages for a while, and return their number. args: the array of struct page, the first page
 * frame number, the one after the last (at most 2^31 from there), what to look for (SCAN_*), and
 * the nanoseconds after which to stop.
 */
PROGRAM(scan_pages)
{
	struct scan *scan = the_scan();
	u64 zero = 0;

	if (!scan)
		return 0;
	CLEAR(scan);
	scan->pages = ctx->args[0];
	scan->pfn = ctx->args[1];
	scan->end = ctx->args[2];
	scan->wants = ctx->args[3];
	scan->subsystem = (u64)READ(task_memcg(current_task()), css.ss);
	scan->until_ns = bpf_ktime_get_ns() + ctx->args[4];
	LOOP(scan_next, MOST_TURNS, &zero);
	CALL(flush, 0, 0);
	return scan->pfn - ctx->args[1];
}
