package whisper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// The environment that turns the test binary into an operator of its own process.
const (
	envAddress = "WHISPER_TEST_OPERATOR_ADDRESS"
	envStore   = "WHISPER_TEST_OPERATOR_STORE"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(envAddress); address != "" {
		fmt.Fprintln(os.Stderr, storingOperator(address, os.Getenv(envStore)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// storingOperator writes each event's pod to a file before it answers 2xx, at the
// pace of an API server.
func storingOperator(address, path string) error {
	store, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var events []wire.CPUThrottle
		if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, e := range events {
			time.Sleep(time.Millisecond)
			if _, err := fmt.Fprintln(store, e.PodName); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
	}))
}

// An operator killed in the middle of a thousand events loses none of them.
func TestKillOfTheOperatorLosesNothing(t *testing.T) {
	const containers = 1000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	store := t.TempDir() + "/stored"

	launch := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), envAddress+"="+address, envStore+"="+store)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		return cmd
	}
	stored := func() map[string]struct{} {
		b, err := os.ReadFile(store)
		if err != nil {
			return nil // not started yet
		}
		out := map[string]struct{}{}
		for line := range strings.Lines(string(b[:bytes.LastIndexByte(b, '\n')+1])) {
			out[strings.TrimSpace(line)] = struct{}{}
		}
		return out
	}

	first := launch()
	s := newSender(t, SenderConfig{URL: "http://" + address, MaxBackoff: time.Second})
	end := start(t, s)
	events := make([]wire.CPUThrottle, containers)
	for i := range events {
		events[i] = event(fmt.Sprintf("pod-%04d", i), 90)
	}
	s.Enqueue(Events(events)...)
	// Not at the end of a batch of 100.
	require.Eventually(t, func() bool { return len(stored()) > 250 }, 30*time.Second, time.Millisecond)
	require.NoError(t, first.Process.Kill())
	_ = first.Wait() // killed
	at := len(stored())
	require.Less(t, at, containers, "the kill came too late to prove anything")

	time.Sleep(300 * time.Millisecond) // gone for a while
	second := launch()
	require.Eventually(t, func() bool { return outcomes(s)[resultDelivered] == containers }, 60*time.Second, 10*time.Millisecond)
	end()
	require.NoError(t, second.Process.Kill())
	_ = second.Wait() // killed
	assert.Len(t, stored(), containers)
	assert.Equal(t, map[string]int{resultDelivered: containers, resultSuperseded: 0, resultDropped: 0}, outcomes(s))
	t.Logf("%d of %d were stored when the operator was killed", at, containers)
}
