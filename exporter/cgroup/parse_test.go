package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	statV2 = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnice_usec 0\ncore_sched.force_idle_usec 0\n" +
		"nr_periods 405\nnr_throttled 381\nthrottled_usec 7000001\nnr_bursts 1\nburst_usec 20\n"
	statV2NoController = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n"
	statV1             = "nr_periods 405\nnr_throttled 381\nthrottled_time 7000001999\nwait_sum 12\nnr_bursts 0\nburst_time 0\n"
)

func TestParseCPUStat(t *testing.T) {
	tests := []struct {
		name    string
		version int
		in      string
		want    CPUStat
		err     string
	}{
		{"v2", 2, statV2, CPUStat{Usage: 1234567 * time.Microsecond, HasUsage: true, Periods: 405, Throttled: 381, ThrottledTime: 7000001 * time.Microsecond, HasBandwidth: true}, ""},
		{"v2 without the controller", 2, statV2NoController, CPUStat{Usage: 1234567 * time.Microsecond, HasUsage: true}, ""},
		{"v1", 1, statV1, CPUStat{Periods: 405, Throttled: 381, ThrottledTime: 7000001999, HasBandwidth: true}, ""},
		{"4.x", 1, "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n", CPUStat{HasBandwidth: true}, ""},
		{"unknown fields of any shape", 2, "usage_usec 1\nnew_thing a b c\nword\n\n", CPUStat{Usage: time.Microsecond, HasUsage: true}, ""},

		{"empty v2", 2, "", CPUStat{}, "field usage_usec is missing"},
		{"empty v1", 1, "", CPUStat{}, "field nr_periods is missing"},
		{"v1 read as v2", 2, statV1, CPUStat{}, "field usage_usec is missing"},
		{"v2 read as v1", 1, statV2, CPUStat{}, "field throttled_time is missing"},
		{"half of the bandwidth fields", 2, "usage_usec 1\nnr_periods 2\nnr_throttled 1\n", CPUStat{}, "field throttled_usec is missing"},
		{"cut off", 2, "usage_usec 1\nnr_periods 2\nnr_throttled 1\nthrottled_usec 70", CPUStat{}, "truncated"},
		{"no value", 2, "usage_usec\n", CPUStat{}, `field usage_usec: "" is not a number`},
		{"negative", 1, "nr_periods -1\n", CPUStat{}, `field nr_periods: "-1" is not a number`},
		{"two values", 1, "nr_throttled 1 2\n", CPUStat{}, `field nr_throttled: "1 2" is not a number`},
		{"too large", 1, "nr_periods 18446744073709551616\n", CPUStat{}, "field nr_periods: \"18446744073709551616\" is not a 64-bit number"},
		{"duration too large", 2, "usage_usec 9223372036854776\n", CPUStat{}, "field usage_usec"},
		{"twice", 1, "nr_periods 1\nnr_periods 2\n", CPUStat{}, "field nr_periods appears twice"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got CPUStat
			err := parseCPUStat([]byte(test.in), test.version, &got)
			if test.err != "" {
				assert.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestParseCPUStatLocal(t *testing.T) {
	d, err := parseCPUStatLocal([]byte("throttled_usec 12\n"), 2)
	require.NoError(t, err)
	assert.Equal(t, 12*time.Microsecond, d)
	d, err = parseCPUStatLocal([]byte("other 1\nthrottled_time 12\n"), 1)
	require.NoError(t, err)
	assert.Equal(t, 12*time.Nanosecond, d)
	for in, want := range map[string]string{
		"":                   "field throttled_usec is missing",
		"throttled_time 3\n": "field throttled_usec is missing",
		"throttled_usec 3":   "truncated",
		"throttled_usec x\n": "field throttled_usec",
	} {
		_, err := parseCPUStatLocal([]byte(in), 2)
		assert.ErrorContains(t, err, want, "%q", in)
	}
}

func TestParseCPUMax(t *testing.T) {
	const ms = time.Millisecond
	for in, want := range map[string]CPULimit{
		"max 100000\n":        {Period: 100 * ms},
		"20000 100000\n":      {Quota: 20 * ms, Period: 100 * ms},
		"1000 1000000\n":      {Quota: ms, Period: 1000 * ms},
		"6400000 100000\n":    {Quota: 6400 * ms, Period: 100 * ms},
		"18446744073 10000\n": {Quota: 18446744073 * time.Microsecond, Period: 10 * ms},
	} {
		got, err := parseCPUMax([]byte(in))
		require.NoError(t, err, in)
		assert.Equal(t, want, got, in)
	}
	for in, want := range map[string]string{
		"":                    "empty",
		"\n":                  "field period is missing",
		"20000\n":             "field period is missing",
		"20000 \n":            `field period: "" is not a number`,
		"20000 0\n":           `field period: "0" is not above 0`,
		"0 100000\n":          `field quota: "0" is not above 0`,
		"-1 100000\n":         `field quota: "-1" is not a number`,
		"MAX 100000\n":        `field quota: "MAX" is not a number`,
		"20000 100000":        "truncated",
		"20000 100000 1\n":    `field period: "100000 1"`,
		"20000 100000\n1 1\n": "more than one line",
	} {
		got, err := parseCPUMax([]byte(in))
		assert.ErrorContains(t, err, want, "%q", in)
		assert.Equal(t, CPULimit{}, got, "%q", in)
	}
}

func TestParseQuota(t *testing.T) {
	for in, want := range map[string]time.Duration{"-1\n": 0, "20000\n": 20 * time.Millisecond} {
		got, err := parseQuota([]byte(in))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{"", "-2\n", "0\n", "max\n", "1"} {
		_, err := parseQuota([]byte(in))
		assert.Error(t, err, "%q", in)
	}
}

func TestParseCPUList(t *testing.T) {
	for in, want := range map[string]int{"\n": 0, "0\n": 1, "0-7\n": 8, "0,2,4-5\n": 4, "0-1023\n": 1024} {
		got, err := parseCPUList([]byte(in))
		require.NoError(t, err, "%q", in)
		assert.Equal(t, want, got, "%q", in)
	}
	for _, in := range []string{"", "0", "a\n", "3-1\n", "1-\n", "-1\n", "0,\n", ",0\n", "0--2\n", "0-9999999\n"} {
		_, err := parseCPUList([]byte(in))
		assert.Error(t, err, "%q", in)
	}
}

func FuzzCPUStat(f *testing.F) {
	for _, seed := range []string{statV2, statV2NoController, statV1, "", "usage_usec 1", "nr_periods 18446744073709551615\n", "throttled_time -1\n"} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, v2 bool) {
		version := 1
		if v2 {
			version = 2
		}
		var s CPUStat
		if err := parseCPUStat(b, version, &s); err == nil {
			assert.True(t, s.HasBandwidth || s.HasUsage, "an error or a value, never nothing")
			assert.GreaterOrEqual(t, s.Usage, time.Duration(0))
			assert.GreaterOrEqual(t, s.ThrottledTime, time.Duration(0))
			assert.Equal(t, v2, s.HasUsage)
			assert.EqualValues(t, '\n', b[len(b)-1])
		}
		if d, err := parseCPUStatLocal(b, version); err == nil {
			assert.GreaterOrEqual(t, d, time.Duration(0))
		}
	})
}

func FuzzCPUMax(f *testing.F) {
	for _, seed := range []string{"max 100000\n", "20000 100000\n", "", "max", "1 0\n", "9223372036854775807 1\n", "9223372036854775 1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseCPUMax(b)
		if err != nil {
			assert.Equal(t, CPULimit{}, l, "an error or a value, never both")
			return
		}
		assert.Positive(t, l.Period)
		assert.GreaterOrEqual(t, l.Quota, time.Duration(0))
		cores, limited := l.Cores()
		assert.Equal(t, l.Quota > 0, limited)
		assert.False(t, math.IsNaN(cores) || math.IsInf(cores, 0) || cores < 0)

		quota := "max"
		if limited {
			quota = strconv.FormatInt(l.Quota.Microseconds(), 10)
		}
		again, err := parseCPUMax(fmt.Appendf(nil, "%s %d\n", quota, l.Period.Microseconds()))
		require.NoError(t, err)
		assert.Equal(t, l, again, "as the kernel would write it")
	})
}

// The one-number files of cgroup v1: cpu.cfs_quota_us, _period_us, _burst_us and cpuacct.usage.
func FuzzCFSFiles(f *testing.F) {
	for _, seed := range []string{"-1\n", "20000\n", "0\n", "", "-2\n", "1", "1\n2\n", "18446744073709551616\n", "9223372036854775807\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		number, numberErr := strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 10, 63)
		isNumber := numberErr == nil && strings.Count(string(b), "\n") == 1
		for name, parse := range map[string]func([]byte) (time.Duration, error){
			"usage":  parseUsage,
			"period": func(b []byte) (time.Duration, error) { return parseMicroseconds("period", b) },
		} {
			d, err := parse(b)
			if err != nil {
				assert.Zero(t, d, name)
				continue
			}
			assert.True(t, isNumber, "%s of %q is %s", name, b, d)
			if name == "usage" {
				assert.EqualValues(t, number, d)
			} else {
				assert.EqualValues(t, number, d.Microseconds())
			}
		}
		quota, err := parseQuota(b)
		switch {
		case string(b) == "-1\n":
			assert.NoError(t, err)
			assert.Zero(t, quota, "no limit")
		case err == nil:
			assert.True(t, isNumber && number > 0, "%q is a quota of %s", b, quota)
			assert.EqualValues(t, number, quota.Microseconds())
		}
	})
}

func FuzzCPUList(f *testing.F) {
	for _, seed := range []string{"\n", "0\n", "0-3,8\n", "0,2,4-5\n", "3-1\n", "0,\n", "0--2\n", "0-9999999\n", "18446744073709551615\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseCPUList(b)
		if err != nil {
			assert.Zero(t, n)
			return
		}
		assert.GreaterOrEqual(t, n, 0)
		assert.Equal(t, n == 0, string(b) == "\n", "%q holds %d CPUs", b, n)
		assert.GreaterOrEqual(t, n, strings.Count(string(b), ",")+min(n, 1), "each part is at least one CPU")
	})
}
