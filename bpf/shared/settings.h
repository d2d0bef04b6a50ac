/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Numbers of one recording that need no compilation of their own. */
#ifndef MEMCG_TRACER_SETTINGS_H
#define MEMCG_TRACER_SETTINGS_H

/*
 * A number that the loader puts into the instructions (ProgramCode.bound in
 * tracer/capture/bpf/compiled/object_file.py). It is a constant to the verifier. The compiler does
 * not know it, so it is no size of an array, and a division by it is not made a shift.
 */
#define SETTING(name) bpf_pseudo_fd(PSEUDO_SETTING, NUMBER_OF_SETTING_##name)

/* The pages of a ring that BCC makes while it compiles: the loader makes rings of other sizes. */
#define SIZED_BY_LOADER 1

#endif
