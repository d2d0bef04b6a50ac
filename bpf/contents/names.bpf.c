// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What the pass over pages begins with, and what it is followed by: the address of the array of
 * pages, and the names of the files, kmem_caches and cgroups at the addresses that were found. User
 * space runs these programs. An object may be gone by now: reading its memory is safe, and the
 * identity of a file or cgroup is compared before and after. A kmem_cache has none.
 */

#include "../shared/paths.h"

BPF_ARRAY(found_pages, u64, 1);

#define MOST_LEVELS 4

/*
 * Find the array of struct page, without the symbol vmemmap_base. args: a descriptor of a file
 * whose first page is in memory, and the number of that page's frame. The file's cache holds the
 * folio itself if it has one page, and else a node that leads to it.
 */
PROGRAM(find_pages)
{
	u32 zero = 0;
	u64 *found = found_pages.lookup(&zero);
	u64 entry = (u64)READ(READ(file_of(ctx->args[0]), f_mapping), xa_head);

	for (u32 level = 0; level < MOST_LEVELS && (entry & 3) == 2; level++)
		entry = (u64)READ((struct xa_node *)(entry - 2), slots[0]);
	if (!found || !entry || entry & 3)
		return 1;
	*found = entry - ctx->args[1] * sizeof(struct page);
	return 0;
}

BPF_ARRAY(named_file, struct inode_event, 1);

/*
 * Name a file. args: the address of its inode, and its identity. The result is 1 if another file
 * has that address by now.
 */
PROGRAM(name_file)
{
	struct inode *inode = (struct inode *)ctx->args[0];
	u32 zero = 0;
	struct inode_event *record = named_file.lookup(&zero);

	if (!record || inode_id(inode) != ctx->args[1])
		return 1;
	CLEAR(record);
	record->inode_id = ctx->args[1];
	describe_inode(record, inode, NULL);
	return inode_id(inode) != ctx->args[1];
}

struct cache_name {
	char text[64];
};

BPF_ARRAY(named_cache, struct cache_name, 1);

/* Name a kmem_cache. args: its address. */
PROGRAM(name_cache)
{
	u32 zero = 0;
	struct cache_name *name = named_cache.lookup(&zero);

	if (!name)
		return 1;
	CLEAR(name);
	return bpf_probe_read_kernel_str(name->text, sizeof(name->text),
					 READ((struct kmem_cache *)ctx->args[0], name)) <= 1;
}

#define CGROUP_NAME_ROOM 256 /* NAME_MAX in include/uapi/linux/limits.h, and a NUL: none is cut */
#define CGROUP_PATH_LEN 2048

struct cgroup_name {
	u32 length;
	u16 is_whole; /* the root was reached */
	u16 has_directory;
	char path[CGROUP_PATH_LEN]; /* names from the leaf to the root, '/' after each */
};

BPF_ARRAY(named_cgroup, struct cgroup_name, 1);

struct cgroup_walk {
	struct cgroup_name *name;
	struct kernfs_node *at;
	u64 length;
	u64 is_whole;
};

/* Write the name of a cgroup's directory. Return 1 at the root, or at the end of the room. */
SUBPROGRAM(write_cgroup_name)
{
	struct cgroup_walk *walk = (struct cgroup_walk *)SECOND_ARGUMENT;
	u64 length = walk->length, end;
	struct kernfs_node *parent = (struct kernfs_node *)READ(walk->at, KERNFS_PARENT);
	s64 got;

	walk->is_whole = !parent;
	if (!parent || length > CGROUP_PATH_LEN - CGROUP_NAME_ROOM)
		return 1;
	got = bpf_probe_read_kernel_str(walk->name->path + length, CGROUP_NAME_ROOM,
					READ(walk->at, name));
	end = length + got;
	if (got <= 0 || end - 1 >= CGROUP_PATH_LEN)
		return 1;
	walk->name->path[end - 1] = '/';
	walk->length = end;
	walk->at = parent;
	return 0;
}

/*
 * Name a cgroup, which may have been removed: its directory is kept as long as its memcg. args: the
 * address of the memcg, and the id of the cgroup. The result is 1 if another memcg has that address
 * by now.
 */
PROGRAM(name_cgroup)
{
	u32 zero = 0;
	struct cgroup_name *name = named_cgroup.lookup(&zero);
	struct mem_cgroup *memcg = (struct mem_cgroup *)ctx->args[0];

	if (!name || memcg_id(memcg) != ctx->args[1])
		return 1;
	CLEAR(name);

	struct cgroup_walk walk = {.name = name, .at = READ(READ(memcg, css.cgroup), kn)};

	LOOP(write_cgroup_name, MAX_DEPTH, &walk);
	name->length = walk.length;
	name->is_whole = walk.is_whole;
	/* cgroup_is_dead(). The memcg's own css goes offline later, in a worker. */
	name->has_directory =
		!!(READ(READ(memcg, css.cgroup), self.flags) & KERNEL_ENUM_CSS_ONLINE);
	return memcg_id(memcg) != ctx->args[1];
}
