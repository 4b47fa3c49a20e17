package terminal

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/liars"
)

const patience = 30 * time.Second

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "kernel-gossip-exporter")
	// As make build builds it, whose cache this shares.
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "./exporter")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// node answers as an exporter does, with many containers of which one lies.
func node(t *testing.T, asked *atomic.Int64) *httptest.Server {
	t.Helper()
	ptr := func(f float64) *float64 { return &f }
	ranking := liars.Ranking{At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Missing: []liars.Unmeasured{}}
	ranking.Containers = append(ranking.Containers, liars.Row{
		Namespace: "shop", Pod: "cart-1", Container: "app", ReportedShare: ptr(0.48), ThrottleRatio: ptr(0.92), Reported: ptr(0.24), Gap: ptr(0.96), Lie: 0.5, WindowSeconds: 60,
	})
	for i := range 40 {
		ranking.Containers = append(ranking.Containers, liars.Row{Namespace: "shop", Pod: fmt.Sprintf("calm-%02d", i), Container: "app", Gap: ptr(0), Reported: ptr(0.01)})
	}
	ranking.Total = len(ranking.Containers)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		assert.NoError(t, json.NewEncoder(w).Encode(ranking))
	}))
	t.Cleanup(server.Close)
	return server
}

// TestTop uses top as a person does: it takes the terminal over, obeys keys, follows the
// terminal's size, and leaves the terminal as it was.
func TestTop(t *testing.T) {
	binary := build(t)
	var asked atomic.Int64
	server := node(t, &asked)
	ctx, stop := context.WithTimeout(t.Context(), 4*patience)
	defer stop()
	top := func(env ...string) *Terminal {
		cmd := exec.CommandContext(ctx, binary, "top", "--url="+server.URL)
		cmd.Env = append(append(os.Environ(), "TERM=xterm-256color", "NO_COLOR="), env...)
		term, err := Start(cmd, 120, 20)
		require.NoError(t, err)
		t.Cleanup(func() { _ = term.Close() })
		return term
	}
	shows := func(term *Terminal, what string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(term.Screen(), what) }, patience, 20*time.Millisecond, "%s\n%q", what, term.Output())
	}

	term := top()
	shows(term, "41 containers, 1 lies")
	assert.Contains(t, term.Screen(), "\x1b[1;31m█████████░ 92.0 %\x1b[0m")
	echoes, err := term.Echoes()
	require.NoError(t, err)
	assert.False(t, echoes, "keys count at once")
	assert.Equal(t, 20, strings.Count(term.Screen(), "\r\n")+1, "the screen is filled, and no more")
	require.NoError(t, term.Press("\x1b[C")) // to the right
	shows(term, "CONTAINER▴")
	require.NoError(t, term.Press("\x1b[6~")) // page down
	shows(term, "rows 16 to 30")
	require.NoError(t, term.Resize(70, 12))
	shows(term, "to 22")
	for l := range strings.SplitSeq(term.Screen(), "\r\n") {
		assert.NotContains(t, l, "█", "no room for bars")
	}
	before := asked.Load()
	require.Eventually(t, func() bool { return asked.Load() > before+1 }, patience, 50*time.Millisecond, "it asks again by itself")
	require.NoError(t, term.Press("q"))
	require.NoError(t, term.Wait(ctx))
	assert.True(t, strings.HasSuffix(term.Output(), "\x1b[?25h\x1b[?1049l"), "the cursor and the old screen are back")
	echoes, err = term.Echoes()
	require.NoError(t, err)
	assert.True(t, echoes)

	t.Run("ctrl c ends it as well", func(t *testing.T) {
		term := top()
		shows(term, "41 containers")
		require.NoError(t, term.Press("\x03"))
		require.NoError(t, term.Wait(ctx))
		assert.True(t, strings.HasSuffix(term.Output(), "\x1b[?25h\x1b[?1049l"))
	})
	t.Run("no colours where they are not wanted", func(t *testing.T) {
		term := top("NO_COLOR=1")
		shows(term, "41 containers")
		assert.NotContains(t, term.Screen(), "\x1b[1;31m")
		require.NoError(t, term.Press("q"))
		require.NoError(t, term.Wait(ctx))
	})
	t.Run("no commands for a dumb terminal", func(t *testing.T) {
		term := top("TERM=dumb")
		require.Eventually(t, func() bool { return strings.Contains(term.Output(), "41 containers") }, patience, 20*time.Millisecond)
		require.NoError(t, term.Press("q"))
		require.NoError(t, term.Wait(ctx))
		assert.NotContains(t, term.Output(), "\x1b")
	})
	t.Run("once into a pipe", func(t *testing.T) {
		before := asked.Load()
		out, err := exec.CommandContext(ctx, binary, "top", "--url="+server.URL).Output()
		require.NoError(t, err)
		assert.Equal(t, before+1, asked.Load())
		assert.NotContains(t, string(out), "\x1b")
		assert.Contains(t, string(out), "20 shown")
	})
}
