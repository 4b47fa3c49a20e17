package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const throttled = `{"type":"cpu_throttle","pod_name":"live-demo","namespace":"shop","throttle_percentage":78.5,"timestamp":"2025-08-25T11:00:00Z"}`

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	app, o := newApp()
	_, err := app.Parse(args)
	require.NoError(t, err)
	return o
}

// Asked to end in the middle of a request, the operator takes no other, and answers
// this one when it is stored.
func TestShutdownDrains(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	o := parse(t, "--store.directory="+dir, "--web.listen-address="+address)
	go func() { ended <- run(ctx, o, slog.New(slog.DiscardHandler)) }()
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + address + "/-/ready")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 30*time.Second, 10*time.Millisecond)

	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /webhook/pixie HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(throttled))
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusContinue, resp.StatusCode, "the door waits for the body")

	end()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 30*time.Second, 10*time.Millisecond, "no other request is taken")
	_, err = conn.Write([]byte(throttled))
	require.NoError(t, err)
	resp, err = http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.FileExists(t, filepath.Join(dir, "shop/kernelwhispers/live-demo-kw.yaml"))
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		require.Fail(t, "the operator does not end")
	}
}

// What cannot be started ends, and says which flag to look at.
func TestCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no token":       {[]string{"--store.directory=" + t.TempDir(), "--web.bearer-token-file=" + file}, "reading the bearer token: " + file + " is empty"},
		"a taken port":   {[]string{"--store.directory=" + t.TempDir(), "--web.listen-address=" + taken.Addr().String()}, "address already in use"},
		"no directory":   {[]string{"--store.directory=" + filepath.Join(file, "dir")}, "making the store's directory"},
		"no such config": {[]string{"--kubeconfig=" + filepath.Join(t.TempDir(), "none")}, "pass --kubeconfig, or --store.directory to do without"},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			o := parse(t, c.args...)
			go func() { ended <- run(t.Context(), o, slog.New(slog.DiscardHandler)) }()
			select {
			case err := <-ended:
				require.ErrorContains(t, err, c.says)
			case <-time.After(30 * time.Second):
				require.Fail(t, "it hangs")
			}
		})
	}
}
