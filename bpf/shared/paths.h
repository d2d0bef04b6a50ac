/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The identity of a file, and its path within its file system. */
#ifndef MEMCG_TRACER_PATHS_H
#define MEMCG_TRACER_PATHS_H

#include "../events.h"
#include "kernel.h"

#define NAME_ROOM 128 /* bytes of a name with its NUL; longer: cut and marked */

/*
 * Read the kernel's name of a memfd, a System V segment or a shared anonymous map: d_alloc_pseudo()
 * makes a dentry that is its own parent for them. The name of a file opened by handle begins with
 * '/' and is not known yet.
 */
static __always_inline void read_pseudo_name(struct inode_event *record, struct dentry *dentry)
{
	s64 got = bpf_probe_read_kernel_str(record->path, NAME_ROOM, READ(dentry, d_name.name));

	if (got <= 1 || record->path[0] == '/')
		return;
	record->path_len = got;
	record->depth = 1;
	record->is_pseudo = 1;
}

#define PATH_DEPTH 20

/* A path, as it is written. */
struct path_walk {
	struct inode_event *record;
	struct dentry *at; /* whose name comes next */
	u32 length;
	u16 is_cut; /* a name was */
	u16 is_whole; /* the root was reached */
};

/* Write the name of a dentry. Return 1 at the end of the path or of the room for it. */
SUBPROGRAM(write_name)
{
	struct path_walk *walk = (struct path_walk *)SECOND_ARGUMENT;
	struct inode_event *record = walk->record;
	struct dentry *parent = READ(walk->at, d_parent);
	u64 length = walk->length, end;
	s64 got;

	walk->is_whole = parent == walk->at || !parent;
	if (walk->is_whole)
		return 1;
	if (length > TRACER_PATH_LEN - NAME_ROOM)
		return 1;
	got = bpf_probe_read_kernel_str(record->path + length, NAME_ROOM,
					READ(walk->at, d_name.name));
	end = length + got;
	if (got <= 0 || end - 1 >= TRACER_PATH_LEN)
		return 1;
	if (got == NAME_ROOM && READ(walk->at, d_name.len) >= NAME_ROOM)
		walk->is_cut = 1;
	record->path[end - 1] = '/';
	walk->length = end;
	record->path_len = end;
	record->depth++;
	walk->at = parent;
	return 0;
}

/*
 * Write the names from the leaf to the root of the file system, each followed by '/'. `dentry` is
 * the name to take if the file has several; NULL: any.
 */
static __always_inline void read_path(struct inode_event *record, struct inode *inode,
				      struct dentry *dentry)
{
	struct hlist_node *node = READ(inode, i_dentry.first);

	if (!node)
		return;
	if (!dentry)
		dentry = (struct dentry *)((char *)node - offsetof(struct dentry, d_alias));
	if (READ(dentry, d_parent) == dentry && READ(READ(inode, i_sb), s_root) != dentry) {
		read_pseudo_name(record, dentry);
		return;
	}

	struct path_walk walk = {.record = record, .at = dentry};

	LOOP(write_name, PATH_DEPTH, &walk);
	if (walk.is_cut || !walk.is_whole)
		record->truncated = 1;
}

#define MINOR_BITS 20 /* of a dev_t (include/linux/kdev_t.h) */
#define BTRFS_SUPER_MAGIC 0x9123683e /* include/uapi/linux/magic.h */

/*
 * Return the number of the subvolume that a file is in; 0 on other file systems than Btrfs, and
 * where the module was loaded after these programs were compiled. Each subvolume numbers its files
 * from 257. The files of a snapshot keep number and generation, and have a page cache of their own.
 * Btrfs has no device of its own: its major number is 0.
 */
static __always_inline u64 subvolume_of(struct inode *inode, u32 dev)
{
#ifdef HAS_btrfs_root_objectid
	if (dev >> MINOR_BITS == 0 && READ(READ(inode, i_sb), s_magic) == BTRFS_SUPER_MAGIC) {
		u64 within = (u64) & ((struct btrfs_inode *)0)->vfs_inode;
		struct btrfs_inode *found = (struct btrfs_inode *)((u64)inode - within);

		return READ(READ(found, root), objectid);
	}
#endif
	return 0;
}

/*
 * Return what tells files apart beside device, number and generation: the subvolume. If there is no
 * generation (squashfs, EROFS, most of FUSE), it is the use of the disk, or else of the device
 * number: a loop device gets a new diskseq with each image since cf179948554a ("block: add disk
 * sequence number"), v5.15, and each mount without a disk a new backing_dev_info.
 */
static __always_inline u64 volume_of(struct inode *inode, u32 dev, u32 generation)
{
	u64 subvolume = subvolume_of(inode, dev);
	struct super_block *sb;

	if (subvolume || generation)
		return subvolume;
	sb = READ(inode, i_sb);
#ifdef HAS_gendisk_diskseq
	struct block_device *device = READ(sb, s_bdev);

	if (device)
		return READ(READ(device, bd_disk), diskseq);
#endif
	return READ(READ(sb, s_bdi), id);
}

/*
 * Return a 63-bit identity of (device, volume, inode number, generation) that needs no state: three
 * rounds of multiply and fold. The first round comes before the inode number is mixed in: with
 * random generations, number ^ generation would soon be equal for two files.
 */
static __always_inline u64 inode_identity(u32 dev, u64 volume, u64 ino, u32 generation)
{
	u64 hash = ((u64)dev << 32 | generation) ^ volume * 0x9e3779b97f4a7c15ULL;

	hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93ULL;
	hash = (hash ^ (hash >> 32) ^ ino) * 0xd6e8feb86659fd93ULL;
	hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93ULL;
	return (hash ^ (hash >> 32)) & 0x7fffffffffffffffULL;
}

/* Return the identity of a file; 0 for NULL. */
static __always_inline u64 inode_id(struct inode *inode)
{
	u32 dev = READ(READ(inode, i_sb), s_dev);
	u32 generation = READ(inode, i_generation);

	return inode ? inode_identity(dev, volume_of(inode, dev, generation), READ(inode, i_ino),
				      generation)
		     : 0;
}

/* Write what the kernel knows of a file; the record is clear, and keeps the fields of its use. */
static __always_inline void describe_inode(struct inode_event *record, struct inode *inode,
					   struct dentry *dentry)
{
	struct super_block *sb = READ(inode, i_sb);

	record->ino = READ(inode, i_ino);
	record->size_bytes = READ(inode, i_size);
	record->dev = READ(sb, s_dev);
	record->rdev = READ(inode, i_rdev);
	record->mode = READ(inode, i_mode);
	record->nlink = READ(inode, i_nlink);
	bpf_probe_read_kernel_str(record->fs_type, sizeof(record->fs_type),
				  READ(READ(sb, s_type), name));
	read_path(record, inode, dentry);
}

#endif
