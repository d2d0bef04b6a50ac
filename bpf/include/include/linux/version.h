/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * BCC checks by version whether stack maps have 64-bit user stacks (since v4.8), and fills the
 * section "version", which the kernel ignores since 6c4fc209fcf9 ("bpf: remove useless version
 * check for prog load"), v5.0. Our programs never look at a version: they find what a kernel has in
 * its BTF.
 */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
