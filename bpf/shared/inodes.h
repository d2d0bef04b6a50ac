/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The stream `inode`: a file is named when one of its folios is first seen. */
#ifndef MEMCG_TRACER_INODES_H
#define MEMCG_TRACER_INODES_H

#include "paths.h"
#include "tracked.h"

#define INODE_WAKE_BYTES (SETTING(inode_ring_bytes) / 2)

BPF_RINGBUF_OUTPUT(inode_ring, SIZED_BY_LOADER);

/*
 * The state of a file when it was last sent. The file is sent again when its last name is removed,
 * and once more when a task of another mount namespace uses it: a container has its own path for a
 * file that the host unpacked. A file with several names (hard links) is sent again when it is
 * executed: its name is then the one by which it was executed.
 */
struct seen_inode {
	u32 mount_ns;
	u8 is_deleted;
	u8 is_shared; /* between mount namespaces */
	u8 is_executed;
	u8 pad;
};

BPF_TABLE("lru_hash", u64, struct seen_inode, seen_inodes, 65536);

/*
 * A file and the last task on this CPU that used it, for which nothing had to be sent. Few files
 * are in use at a time, and a look-up here costs less than one in `seen_inodes`.
 */
struct sight {
	u64 inode_id;
	struct nsproxy *namespaces;
	u64 undecided_id; /* the folio's owner, if it is not yet decided whether to trace it */
	u32 tgid;
	u16 is_deleted;
	u16 is_executed;
};

#define SIGHTS 64 /* by the low bits of the file's identity */

BPF_PERCPU_ARRAY(last_sights, struct sight, SIGHTS);

/* Return the name by which the current task executes a file; NULL: it executes another one. */
static __always_inline struct dentry *executed_name(struct inode *inode)
{
	struct dentry *dentry = READ(READ(READ(current_task(), mm), exe_file), dentry);

	return READ(dentry, d_inode) == inode ? dentry : NULL;
}

#define OVERLAYFS_SUPER_MAGIC 0x794c7630 /* include/uapi/linux/magic.h */

static __always_inline struct inode *host_of(struct file *file)
{
	return READ(READ(file, f_mapping), host);
}

/*
 * Return the inode whose cache has the contents of an open file; NULL for NULL. In an overlay,
 * private_data has the open file below: the file itself, or, since 87a8a76c34a2 ("ovl: allocate a
 * container struct ovl_file for ovl private context"), v6.13, a structure whose first member is the
 * file. The first member of a file is not a file, which distinguishes the two. The structure is
 * smaller than a file, so nothing beyond its members may be used for that.
 */
static __always_inline struct inode *cached_inode(struct file *file)
{
	struct inode *host = host_of(file);
	struct file *below, *first;

	if (READ(READ(host, i_sb), s_magic) != OVERLAYFS_SUPER_MAGIC)
		return host;
	below = READ(file, private_data);
	bpf_probe_read_kernel(&first, sizeof(first), below);
	host = host_of(first);
	return host && host == READ(first, f_inode) ? host : host_of(below);
}

static __always_inline u32 current_mount_ns(void)
{
	return READ(READ(READ(current_task(), nsproxy), mnt_ns), inum);
}

static __always_inline int emit_inode(struct inode *inode, u64 inode_id, u64 owner_id,
				      struct seen_inode *now)
{
	struct inode_event *record =
		or_count_lost(inode_ring.ringbuf_reserve(sizeof(*record)), STREAM_INODE);

	if (!record)
		return 0;

	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->inode_id = inode_id;
	record->cgroup_id = owner_id;
	record->mount_ns = now->mount_ns;
	record->tgid = current_tgid();
	record->ppid = READ(READ(current_task(), real_parent), tgid);
	record->reaper_tgid = READ(
		READ(READ(READ(current_task(), nsproxy), pid_ns_for_children), child_reaper), tgid);
	describe_inode(record, inode, executed_name(inode));

	u64 waiting = inode_ring.ringbuf_query(BPF_RB_AVAIL_DATA);

	inode_ring.ringbuf_submit(record, wake_flag(waiting > INODE_WAKE_BYTES));
	return 0;
}

/* Describe the use of a file by the current task. */
static __always_inline struct sight sight_of(struct inode *inode, u64 inode_id, u32 tgid,
					     struct memcg_info *user)
{
	u32 names = READ(inode, i_nlink);
	struct sight sight = {
		.inode_id = inode_id,
		.namespaces = LOAD(current_task(), nsproxy),
		.undecided_id = user->follow == FOLLOW_UNDECIDED ? user->cgroup_id : 0,
		.tgid = tgid,
		.is_deleted = names == 0,
		.is_executed = names > 1 && executed_name(inode),
	};

	return sight;
}

/*
 * Send a file that is new, or that changed. The arguments are the inode and the memcg of its user,
 * or of the folio: NULL if it has none. The file is not remembered if it is not yet decided whether
 * to trace the memcg: if user space drops the record, the next event must send another.
 */
SUBPROGRAM(see_changed_inode)
{
	struct inode *inode = (struct inode *)FIRST_ARGUMENT;
	struct memcg_info user = memcg_info((struct mem_cgroup *)SECOND_ARGUMENT);
	u64 id = inode_id(inode);
	u32 place = id % SIGHTS;
	struct sight *last = last_sights.lookup(&place);
	struct sight sight = sight_of(inode, id, current_tgid(), &user);
	struct seen_inode *seen = seen_inodes.lookup(&id);
	struct seen_inode now = {
		.is_deleted = sight.is_deleted,
		.is_executed = sight.is_executed || (seen && seen->is_executed),
	};

	if (!last)
		return 0;
	if (seen && seen->is_shared) {
		now.mount_ns = seen->mount_ns;
		now.is_shared = 1;
	} else {
		now.mount_ns = current_mount_ns();
		now.is_shared = seen && now.mount_ns && seen->mount_ns != now.mount_ns;
	}
	if (seen && seen->is_deleted == now.is_deleted && seen->is_shared == now.is_shared &&
	    seen->is_executed == now.is_executed) {
		*last = sight;
		return 0;
	}
	if (sight.undecided_id)
		*last = sight;
	else
		seen_inodes.update(&id, &now);
	emit_inode(inode, id, user.cgroup_id, &now);
	return 0;
}

/* Send a file that is new, or that changed; `user` as in see_changed_inode. */
static __always_inline void see_inode(struct inode *inode, u64 inode_id, struct memcg_info *user,
				      u32 tgid)
{
	u32 place = inode_id % SIGHTS;
	struct sight *last = last_sights.lookup(&place);
	struct sight sight = sight_of(inode, inode_id, tgid, user);

	if (last &&
	    (last->inode_id != sight.inode_id || last->namespaces != sight.namespaces ||
	     last->undecided_id != sight.undecided_id || last->tgid != sight.tgid ||
	     last->is_deleted != sight.is_deleted || last->is_executed != sight.is_executed))
		CALL(see_changed_inode, ADDRESS(inode), ADDRESS(user->memcg));
}

/*
 * Send a file that a task of a memcg uses, if it is new or changed, and return its identity; 0
 * without a file.
 */
static __always_inline u64 see_file(struct inode *inode, struct memcg_info *user, u32 tgid)
{
	u64 id = inode_id(inode);

	if (id)
		see_inode(inode, id, user, tgid);
	return id;
}

#endif
