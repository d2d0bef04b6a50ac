/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Empty on purpose: BCC includes it, and the loader defines PAGE_SIZE (arm64 has kernels of three).
 */
