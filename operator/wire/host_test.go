package wire

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestHostPod(t *testing.T) {
	for _, tc := range []struct{ node, path, want string }{
		{"", "/kernel-gossip-demo", "kernel-gossip-demo"},
		{"", "/system.slice/nginx.service", "system-slice-nginx-service-"},
		{"", "/a/b", "a-b-"},
		{"", "/a-b", "a-b"},
		{"", "/Build_42", "build-42-"},
		{"", "/", "cgroup-"},
		{"", "/日本", "cgroup-"},
		{"", "/-a-", "a-"},
		{"", "/" + string(make([]byte, 500)), "cgroup-"},
		{"worker-1.example", "/system.slice/nginx.service", "worker-1-example-system-slice-nginx-service-"},
	} {
		got := HostPod(tc.node, tc.path)
		assert.Contains(t, got, tc.want)
		assert.Empty(t, validation.IsDNS1123Subdomain(got), "%q gives %q", tc.path, got)
	}
	assert.NotEqual(t, HostPod("", "/a/b"), HostPod("", "/a-b"))
	assert.NotEqual(t, HostPod("", "/a/b"), HostPod("", "/a_b"))
	assert.NotEqual(t, HostPod("n1", "/a"), HostPod("n2", "/a"), "each node has its own kubelet.service")
}

func FuzzHostPod(f *testing.F) {
	f.Add("", "/system.slice/nginx.service")
	f.Add("node-1", "/-\xff/..")
	f.Fuzz(func(t *testing.T, node, path string) {
		got := HostPod(node, path)
		if problems := validation.IsDNS1123Subdomain(got); len(problems) > 0 || len(got) > MaxHostPod {
			t.Fatalf("%q on %q gives %q: %v", path, node, got, problems)
		}
	})
}
