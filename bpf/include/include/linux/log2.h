/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* BCC's stack maps ask for this; every size of ours is a power of two already. */
#define roundup_pow_of_two(n) (n)
