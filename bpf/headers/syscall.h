/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a thread entered the kernel with. */
#pragma once

#include "kernel.h"

/* The numbers of a 32-bit caller are those of another table. */
#if defined(__TARGET_ARCH_x86)
#define COMPAT(thread_info) ((thread_info).status)
#define IS_COMPAT 0x2 /* TS_COMPAT */
#define NUMBER(regs) ((regs)->orig_ax)
#define FIRST_ARGUMENT 14 /* of a probed function, in words of struct pt_regs: rdi */
#elif defined(__TARGET_ARCH_arm64)
#define COMPAT(thread_info) ((thread_info).flags)
#define IS_COMPAT (1UL << 22) /* TIF_32BIT */
#define NUMBER(regs) ((regs)->syscallno)
#define FIRST_ARGUMENT 0 /* x0 */
#else
#error "say how this architecture marks a 32-bit call"
#endif
