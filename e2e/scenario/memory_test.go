package scenario

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseMemory(t *testing.T) {
	for out, want := range map[string]map[string]float64{
		"low 0\nmax 7\noom_kill 1\nanon 4096\nworkingset_refault_anon 2\nworkingset_refault_file 3\n" +
			"some avg10=1.00 avg60=0.10 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=34\n": {
			"low": 0, "max": 7, "oom_kill": 1, "anon": 4096, "refaults": 5, "some total": 1234, "full total": 34,
		},
		"12\nunder_oom 0\noom_kill 2\nworkingset_refault_file 3\ntotal_workingset_refault_file 3\n": {
			"failcnt": 12, "under_oom": 0, "oom_kill": 2, "refaults": 3, "total_workingset_refault_file": 3,
		},
	} {
		got, err := parseMemory(out)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, odd := range []string{"max\n", "max many\n", "a b c\n", "\n"} {
		_, err := parseMemory(odd)
		assert.ErrorContains(t, err, "has the line", odd)
	}
}

func TestParseSNMP(t *testing.T) {
	const out = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin RetransSegs\nTcp: 200 17\n"
	n, err := parseSNMP(out, "Tcp", "RetransSegs")
	require.NoError(t, err)
	assert.Equal(t, 17.0, n)
	for _, odd := range []string{"", "Tcp: RetransSegs\n", "Tcp: RtoMin RetransSegs\nTcp: 200\n", "Udp: RetransSegs\nUdp: 1\n"} {
		_, err := parseSNMP(odd, "Tcp", "RetransSegs")
		assert.ErrorContains(t, err, "there is no RetransSegs", odd)
	}
}
