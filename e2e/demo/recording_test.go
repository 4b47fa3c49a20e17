package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadRecordingRefuses(t *testing.T) {
	const head = `{"platform":"Linux","files":{"a/cpu.stat":"nr_periods 1\n"}}` + "\n"
	for name, c := range map[string]struct{ tape, want string }{
		"nothing":         {"", "its head"},
		"no frames":       {head, "it is empty"},
		"no JSON":         {head + "x", "line 2"},
		"a way out":       {`{"files":{"../x":""}}` + "\n" + `{"at":1}`, `"../x" leads out of the tree`},
		"an unknown file": {head + `{"at":1,"files":{"b":""}}`, "line 2: b was not there"},
		"time that turns": {head + `{"at":2}` + "\n" + `{"at":1}`, "line 3: is earlier"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readRecording(strings.NewReader(c.tape))
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// The shipped recording is of a run worth replaying: long enough, and throttled in
// more than half of its periods, which a whisper takes.
func TestShippedRecording(t *testing.T) {
	r, err := shipped()
	require.NoError(t, err)
	assert.Greater(t, r.length(), 40*time.Second)
	assert.Positive(t, r.syscallsAt(r.length()))
	var last string
	for _, f := range r.frames {
		for name, content := range f.Files {
			if strings.HasSuffix(name, "cpu.stat") {
				last = content
			}
		}
	}
	periods, err := statField([]byte(last), "nr_periods")
	require.NoError(t, err)
	throttled, err := statField([]byte(last), "nr_throttled")
	require.NoError(t, err)
	assert.Greater(t, float64(throttled)/float64(periods), 0.5)
}

func TestPlayer(t *testing.T) {
	r, err := readRecording(strings.NewReader(`{"platform":"Linux","files":{"cpu/kernel-gossip-demo/cpu.stat":"nr_periods 9\nnr_throttled 1\n"}}
{"at":1000000,"files":{"cpu/kernel-gossip-demo/cpu.stat":"nr_periods 10\nnr_throttled 2\n"},"syscalls":7}
{"at":2000000,"files":{"cpu/kernel-gossip-demo/cpu.stat":"nr_periods 11\nnr_throttled 3\n"}}
`))
	require.NoError(t, err)
	p, err := newPlayer(r, t.TempDir())
	require.NoError(t, err)
	n, err := p.stat("nr_periods")
	require.NoError(t, err)
	assert.EqualValues(t, 9, n)

	// A reader that keeps the file open sees the changes.
	open, err := os.Open(p.path("cpu/kernel-gossip-demo/cpu.stat"))
	require.NoError(t, err)
	defer open.Close()
	assert.Contains(t, open.Name(), replayName)

	require.NoError(t, p.begin())
	<-p.done
	b := make([]byte, 100)
	k, _ := open.ReadAt(b, 0)
	assert.Equal(t, "nr_periods 11\nnr_throttled 3\n", string(b[:k]))
	assert.NoError(t, p.stop())
	assert.EqualValues(t, 7, r.syscallsAt(time.Second))
	assert.Zero(t, r.syscallsAt(0))
}
