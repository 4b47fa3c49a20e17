package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

var (
	errTruncated = errors.New("truncated: does not end with a newline")
	errEmpty     = errors.New("empty")
)

// fieldError is an unreadable value, with the field that holds it.
type fieldError struct {
	field, value, want string
}

func (e *fieldError) Error() string {
	return fmt.Sprintf("field %s: %q is not %s", e.field, e.value, e.want)
}

func missing(field string) error { return fmt.Errorf("field %s is missing", field) }

// The fields of cpu.stat that are read, as bits of what was seen.
const (
	sawUsage = 1 << iota
	sawPeriods
	sawThrottled
	sawThrottledTime
	sawBandwidth = sawPeriods | sawThrottled | sawThrottledTime
)

// parseCPUStat reads cpu.stat of cgroup v1 (nanoseconds, no usage) or v2
// (microseconds) into s. Fields it does not know are passed over; a known one that
// is unreadable, repeated or missing beside its siblings is an error.
func parseCPUStat(b []byte, version int, s *CPUStat) error {
	if len(b) > 0 && b[len(b)-1] != '\n' {
		return errTruncated
	}
	saw := 0
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte{'\n'})
		key, value, _ := bytes.Cut(line, []byte{' '})
		var err error
		bit := 0
		// A switch over string(key) does not allocate.
		switch string(key) {
		case "usage_usec":
			if version == 2 {
				bit = sawUsage
				s.Usage, err = parseDuration("usage_usec", value, time.Microsecond)
			}
		case "nr_periods":
			bit = sawPeriods
			s.Periods, err = parseUint("nr_periods", value)
		case "nr_throttled":
			bit = sawThrottled
			s.Throttled, err = parseUint("nr_throttled", value)
		case "throttled_usec":
			if version == 2 {
				bit = sawThrottledTime
				s.ThrottledTime, err = parseDuration("throttled_usec", value, time.Microsecond)
			}
		case "throttled_time":
			if version == 1 {
				bit = sawThrottledTime
				s.ThrottledTime, err = parseDuration("throttled_time", value, time.Nanosecond)
			}
		}
		if err != nil {
			return err
		}
		if saw&bit != 0 {
			return fmt.Errorf("field %s appears twice", key)
		}
		saw |= bit
	}
	if version == 2 {
		if saw&sawUsage == 0 {
			return missing("usage_usec")
		}
		s.HasUsage = true
	}
	if version == 1 || saw&sawBandwidth != 0 {
		switch {
		case saw&sawPeriods == 0:
			return missing("nr_periods")
		case saw&sawThrottled == 0:
			return missing("nr_throttled")
		case saw&sawThrottledTime == 0:
			return missing(throttledField(version))
		}
		s.HasBandwidth = true
	}
	return nil
}

func throttledField(version int) string {
	if version == 1 {
		return "throttled_time"
	}
	return "throttled_usec"
}

// parseCPUStatLocal reads cpu.stat.local: throttled_usec on v2, throttled_time (ns) on v1.
func parseCPUStatLocal(b []byte, version int) (time.Duration, error) {
	field, unit := throttledField(version), time.Microsecond
	if version == 1 {
		unit = time.Nanosecond
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		return 0, errTruncated
	}
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte{'\n'})
		if key, value, _ := bytes.Cut(line, []byte{' '}); string(key) == field {
			return parseDuration(field, value, unit)
		}
	}
	return 0, missing(field)
}

// parseCPUMax reads cpu.max: "<quota>|max <period>" in microseconds.
func parseCPUMax(b []byte) (CPULimit, error) {
	line, err := oneLine(b)
	if err != nil {
		return CPULimit{}, err
	}
	quota, period, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return CPULimit{}, missing("period")
	}
	var l CPULimit
	if l.Period, err = parsePositive("period", period); err != nil {
		return CPULimit{}, err
	}
	if string(quota) == "max" {
		return l, nil
	}
	if l.Quota, err = parsePositive("quota", quota); err != nil {
		return CPULimit{}, err
	}
	return l, nil
}

// parseQuota reads cpu.cfs_quota_us: microseconds, or -1 for no limit, given as 0.
func parseQuota(b []byte) (time.Duration, error) {
	line, err := oneLine(b)
	if err != nil {
		return 0, err
	}
	if string(line) == "-1" {
		return 0, nil
	}
	return parsePositive("quota", line)
}

// parseMicroseconds reads a file that holds one number of microseconds.
func parseMicroseconds(field string, b []byte) (time.Duration, error) {
	line, err := oneLine(b)
	if err != nil {
		return 0, err
	}
	return parseDuration(field, line, time.Microsecond)
}

// parseUsage reads cpuacct.usage: nanoseconds.
func parseUsage(b []byte) (time.Duration, error) {
	line, err := oneLine(b)
	if err != nil {
		return 0, err
	}
	return parseDuration("usage", line, time.Nanosecond)
}

// parseCPUList counts the CPUs of a list such as 0-3,8 (Documentation/admin-guide/cputopology).
// An empty list is 0.
func parseCPUList(b []byte) (int, error) {
	line, err := oneLine(b)
	if err != nil {
		return 0, err
	}
	n := 0
	for len(line) > 0 {
		var part []byte
		var more bool
		part, line, more = bytes.Cut(line, []byte{','})
		if more && len(line) == 0 {
			return 0, &fieldError{"CPU list", ",", "a range"}
		}
		first, last, isRange := bytes.Cut(part, []byte{'-'})
		lo, err := parseUint("CPU list", first)
		if err != nil {
			return 0, err
		}
		hi := lo
		if isRange {
			if hi, err = parseUint("CPU list", last); err != nil {
				return 0, err
			}
		}
		if hi < lo || hi >= maxCPUs {
			return 0, &fieldError{"CPU list", string(part), "a range of CPUs"}
		}
		n += int(hi - lo + 1)
	}
	return n, nil
}

// maxCPUs is far above any kernel's NR_CPUS.
const maxCPUs = 1 << 20

func oneLine(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errEmpty
	}
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return nil, errTruncated
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("more than one line: %q", rest)
	}
	return line, nil
}

func parsePositive(field string, value []byte) (time.Duration, error) {
	d, err := parseDuration(field, value, time.Microsecond)
	if err == nil && d == 0 {
		err = &fieldError{field, string(value), "above 0"}
	}
	return d, err
}

func parseDuration(field string, value []byte, unit time.Duration) (time.Duration, error) {
	n, err := parseUint(field, value)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/uint64(unit) {
		return 0, &fieldError{field, strconv.FormatUint(n, 10), "a duration of less than 292 years"}
	}
	return time.Duration(n) * unit, nil
}

// parseUint is strconv.ParseUint for bytes: decimal digits and nothing else.
func parseUint(field string, value []byte) (uint64, error) {
	if len(value) == 0 {
		return 0, &fieldError{field, "", "a number"}
	}
	var n uint64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, &fieldError{field, string(value), "a number"}
		}
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, &fieldError{field, string(value), "a 64-bit number"}
		}
		n = n*10 + d
	}
	return n, nil
}
