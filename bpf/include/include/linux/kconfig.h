/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * BCC includes this first, in place of the configuration of a kernel build. With this folder as
 * BCC_KERNEL_SOURCE no kernel headers are needed: BCC has the prototypes of the helpers, and BTF
 * has the structures of the running kernel (tracer/kernel/btf.py). Beyond that, only the names
 * below are needed.
 */
#ifndef MEMCG_TRACER_KCONFIG_H
#define MEMCG_TRACER_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;

typedef __u16 __le16;
typedef __u16 __be16;
typedef __u32 __le32;
typedef __u32 __be32;
typedef __u64 __le64;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;

#define __aligned_u64 __u64 __attribute__((aligned(8)))

typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef int pid_t;
typedef u32 dev_t;
typedef _Bool bool;

#define __always_inline inline __attribute__((always_inline))
#define offsetof(type, member) __builtin_offsetof(type, member)

#define true 1
#define false 0
#define NULL ((void *)0)

#endif
