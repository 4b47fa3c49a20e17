/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

#include "bpf.h"

/* Buckets end at powers of two of a second, 2^-20 s to 2^7 s, as those of a
 * Prometheus native histogram of schema 0 do. Powers of two of a nanosecond would
 * straddle them. Go: HistogramBuckets, HistogramMinExp. */
#define BUCKETS 28
#define MIN_EXP 20
#define SECOND 1000000000ULL

static __always_inline u64 upper_bound(u32 bucket)
{
	return bucket >= MIN_EXP ? SECOND << (bucket - MIN_EXP) : SECOND >> (MIN_EXP - bucket);
}

/* The first bucket whose upper bound is not below ns; the last takes the rest. */
static __always_inline u32 bucket_of(u64 ns)
{
	u32 bucket = 0;

#pragma clang loop unroll(full)
	for (u32 step = 16; step; step >>= 1)
		if (bucket + step < BUCKETS && ns > upper_bound(bucket + step - 1))
			bucket += step;
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}
