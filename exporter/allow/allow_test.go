package allow

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

const example = `
defaults: false
rules:
  - namespaces: [ci, builds]
    labels: {app: builder, tier: "1"}
    events: [unshare, mount]
  - namespaces: [debug]
    events: ["*"]
`

func TestEvents(t *testing.T) {
	l, err := Parse([]byte(example))
	require.NoError(t, err)
	builder := map[string]string{"app": "builder", "tier": "1", "more": "x"}
	for name, tc := range map[string]struct {
		namespace string
		labels    map[string]string
		event     bpf.SecurityEvent
		want      bool
	}{
		"namespace and labels":            {"ci", builder, bpf.SecurityMount, true},
		"the other namespace":             {"builds", builder, bpf.SecurityUnshare, true},
		"another event":                   {"ci", builder, bpf.SecurityPtrace, false},
		"a label too few":                 {"ci", map[string]string{"app": "builder"}, bpf.SecurityMount, false},
		"another value":                   {"ci", map[string]string{"app": "builder", "tier": "2"}, bpf.SecurityMount, false},
		"the labels in another namespace": {"shop", builder, bpf.SecurityMount, false},
		"all events":                      {"debug", nil, bpf.SecurityModuleLoad, true},
		"of no pod":                       {"", nil, bpf.SecurityMount, false},
		"no default":                      {"kube-system", nil, bpf.SecurityBPF, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, l.Events(tc.namespace, tc.labels)[tc.event])
		})
	}
	var none *List
	assert.Empty(t, none.Events("debug", nil)[bpf.SecurityMount])
}

func TestDefaults(t *testing.T) {
	for name, content := range map[string]string{"no file": "", "beside the file's": "rules: []\n"} {
		t.Run(name, func(t *testing.T) {
			path := ""
			if content != "" {
				path = filepath.Join(t.TempDir(), "allow.yml")
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			}
			l, err := Read(path)
			require.NoError(t, err)
			agent := l.Events("kube-system", nil)
			assert.True(t, agent[bpf.SecurityBPF])
			assert.True(t, agent[bpf.SecurityMount])
			assert.False(t, agent[bpf.SecurityPtrace])
			assert.False(t, agent[bpf.SecurityReleaseAgent])
			us := map[string]string{"app.kubernetes.io/name": "kernel-gossip-exporter"}
			assert.True(t, l.Events("kernel-gossip-node", us)[bpf.SecurityBPF])
			assert.False(t, l.Events("shop", us)[bpf.SecurityBPF], "a label is not enough")
		})
	}
}

func TestErrorsNameTheField(t *testing.T) {
	for content, want := range map[string]string{
		"rules: [{events: [mount]}]":                                        "rules[0].namespaces: name at least one",
		"rules: [{namespaces: [a], events: [mount]}, {namespaces: [a]}]":    "rules[1].events: name at least one of setns",
		"rules: [{namespaces: [a, B_], events: [mount]}]":                   `rules[0].namespaces[1]: "B_" is not`,
		"rules: [{namespaces: [a], events: [mount, dance]}]":                `rules[0].events[1]: there is no event "dance"`,
		"rules: [{namespaces: [a], labels: {'a b': c}, events: [mount]}]":   `rules[0].labels: "a b"`,
		"rules: [{namespaces: [a], labels: {app: 'c d'}, events: [mount]}]": `rules[0].labels.app: "c d"`,
		"rules: [{namespaces: [a], event: [mount]}]":                        `unknown field "event"`,
		"rules: 7": "parsing the rules",
	} {
		_, err := Parse([]byte(content))
		assert.ErrorContains(t, err, want, content)
	}
	_, err := Read(filepath.Join(t.TempDir(), "none.yml"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("rules: [{namespaces: [a], labels: {app: b}, events: ['*']}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := Parse(b); err == nil {
			l.Events("a", map[string]string{"app": "b"})
		}
	})
}
