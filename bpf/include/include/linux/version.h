/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * BCC asks whether a stack map has 64-bit user stacks (since 4.8) and fills the old "version"
 * section, which the kernel has not checked since 5.0. Nothing of ours looks at a version: what a
 * kernel has is found in its BTF.
 */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
