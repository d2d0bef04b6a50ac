/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* BCC's stack maps use this. Our sizes are powers of two already. */
#define roundup_pow_of_two(n) (n)
