/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Empty on purpose: BCC includes it. The loader defines PAGE_SIZE, since arm64 has three. */
