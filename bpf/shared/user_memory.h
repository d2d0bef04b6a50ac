/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Reads of a process's own memory. */
#ifndef MEMCG_TRACER_USER_MEMORY_H
#define MEMCG_TRACER_USER_MEMORY_H

/*
 * bpf_probe_read_user() under a name that BCC does not know. For each call by the known name, BCC
 * makes a table of all symbols of the kernel, to see whether it has the helper: 25 ms. A kernel
 * with ring buffers (457f44363a88, v5.8) has it (6ae08ae3dea2 ("bpf: Add probe_read_{user, kernel}
 * and probe_read_{user, kernel}_str helpers"), v5.5).
 */
static int (*read_user)(void *into, u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_user;

#endif
