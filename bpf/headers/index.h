/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where a cgroup's part of an array is. */
#pragma once

#include "group.h"

/* A hash has each cgroup's index, from a stack of those that are free, which user space
 * fills. To look into it costs more than the rest of a short program, so each CPU
 * remembers some that it found, by the serial number of the cgroup's state: it is never
 * given twice, and two pointers away. Then all that is looked into is arrays, which the
 * verifier does in place. */
#define NEAR 16
#define NO_INDEX (~0U)
#define NOT_COUNTED (~0U - 1)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u32);
} indexes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4096);
	__type(value, u32);
} unused SEC(".maps");

struct near {
	u64 serial;
	u32 index;
	u32 forgotten; /* as it was found */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEAR);
	__type(key, u32);
	__type(value, struct near);
} nears SEC(".maps");

/* How often user space took an index back: what was found before is void. */
volatile u32 forgotten = 0;

static __noinline u32 find_index(u64 id)
{
	u32 index, *given;

	if (id <= ROOT)
		return NOT_COUNTED;
	given = bpf_map_lookup_elem(&indexes, &id);
	if (given)
		return *given;
	if (bpf_map_pop_elem(&unused, &index)) {
		count_lost();
		return NO_INDEX;
	}
	if (!bpf_map_update_elem(&indexes, &id, &index, BPF_NOEXIST))
		return index;
	bpf_map_push_elem(&unused, &index, 0); /* another CPU was first */
	given = bpf_map_lookup_elem(&indexes, &id);
	if (given)
		return *given;
	count_lost();
	return NO_INDEX;
}

/* Takes the serial number, and an expression for the id should it be needed. An autogroup
 * has neither. */
#define INDEX(serial_nr, id)                                                                    \
	({                                                                                      \
		u64 serial = serial_nr;                                                         \
		u32 slot = serial % NEAR, index = NO_INDEX;                                     \
		struct near *near = bpf_map_lookup_elem(&nears, &slot);                         \
                                                                                                \
		if (!near || !serial) {                                                         \
			index = NOT_COUNTED;                                                    \
		} else if (near->serial == serial && near->forgotten == forgotten) {            \
			index = near->index;                                                    \
		} else {                                                                        \
			u32 before = forgotten;                                                 \
                                                                                                \
			index = find_index(id);                                                 \
			if (index != NO_INDEX) {                                                \
				near->index = index;                                            \
				near->forgotten = before;                                       \
				near->serial = serial;                                          \
			}                                                                       \
		}                                                                               \
		index;                                                                          \
	})
