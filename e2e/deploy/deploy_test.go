// Package deploy applies the manifests that users apply to a real API server.
package deploy

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
)

const (
	root     = "../../deploy/"
	exporter = "system:serviceaccount:kernel-gossip-node:kernel-gossip-exporter"
	operator = "system:serviceaccount:kernel-gossip:kernel-gossip-operator"
)

// server has no controllers: what is applied is stored and judged, and nothing starts.
type server struct{ *apiserver.Server }

func start(t *testing.T) server {
	t.Helper()
	s, err := apiserver.Start(t.Context(), apiserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	return server{s}
}

// kubectl returns what it printed on standard output, which must have been its success.
func (s server) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), nil, args...)
	require.NoError(t, err)
	return out
}

func TestManifests(t *testing.T) {
	s := start(t)

	t.Run("every file passes a dry run", func(t *testing.T) {
		s.kubectl(t, "apply", "-f", root+"manifests/0-namespaces.yaml") // a dry run makes none for what is in them
		files, err := filepath.Glob(root + "*/*.yaml")                  // not the chart's templates
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			if strings.Contains(f, "/monitoring/") || strings.Contains(f, "/chart/") {
				continue // of the Prometheus Operator's kinds; values
			}
			s.kubectl(t, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", f)
		}
		s.kubectl(t, "delete", "-f", root+"manifests/0-namespaces.yaml", "--wait=false")
	})

	t.Run("twice by kustomize, then by files", func(t *testing.T) {
		s := start(t)
		assert.Contains(t, s.kubectl(t, "apply", "-k", root+"manifests"), "daemonset.apps/kernel-gossip-exporter created")
		again := s.kubectl(t, "apply", "-k", root+"manifests")
		s.unchanged(t)
		byFile := s.kubectl(t, "apply", "-f", root+"crds", "-f", root+"manifests")
		assert.Equal(t, strings.Count(again, "\n"), strings.Count(byFile, "\n"), "both ways name the same objects")
		s.unchanged(t)

		t.Run("rights", func(t *testing.T) { s.rights(t) })
		t.Run("pod security", func(t *testing.T) { s.podSecurity(t) })
		t.Run("token", func(t *testing.T) { s.token(t) })
	})

	t.Run("from nothing by files", func(t *testing.T) {
		s := start(t)
		s.kubectl(t, "apply", "-f", root+"crds", "-f", root+"manifests")
	})
}

// unchanged asks for the generation of what has a spec: a second apply makes no new
// one. (kubectl's own word is "configured" for a PodDisruptionBudget each time.)
func (s server) unchanged(t *testing.T) {
	out := s.kubectl(t, "get", "-A", "-l", "app.kubernetes.io/part-of=kernel-gossip", "daemonset,deployment,service,poddisruptionbudget,networkpolicy",
		"-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{"\n"}{end}`)
	assert.GreaterOrEqual(t, strings.Count(out, "\n"), 6, out)
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Service/") { // which has no generation
			assert.True(t, strings.HasSuffix(line, " 1\n"), line)
		}
	}
}

// rights tries each right that the product uses and some that it must not have.
func (s server) rights(t *testing.T) {
	for _, c := range []struct {
		who  string
		may  bool
		args string
	}{
		{exporter, true, "list pods -A"},
		{exporter, true, "watch pods -A"},
		{exporter, true, "get nodes"},
		{exporter, true, "get nodes --subresource=metrics"},
		{exporter, false, "get nodes --subresource=proxy"},
		{exporter, false, "get nodes --subresource=stats"},
		{exporter, false, "list nodes"},
		{exporter, false, "get secrets -A"},
		{exporter, false, "create pods -A"},
		{exporter, false, "create kernelwhispers.kernel-gossip.dev -A"},
		{operator, true, "create kernelwhispers.kernel-gossip.dev -A"},
		{operator, true, "patch kernelwhispers.kernel-gossip.dev -A"},
		{operator, true, "watch kernelwhispers.kernel-gossip.dev -A"},
		{operator, true, "delete podbirthcertificates.kernel-gossip.dev -A"},
		{operator, true, "patch kernelwhispers.kernel-gossip.dev --subresource=status -A"},
		{operator, true, "get pods -A"},
		{operator, true, "create events.events.k8s.io -A"},
		{operator, true, "create events -n kernel-gossip"}, // of the lease
		{operator, false, "create events -A"},
		{operator, true, "update leases.coordination.k8s.io/kernel-gossip-operator -n kernel-gossip"},
		{operator, true, "create leases.coordination.k8s.io -n kernel-gossip"},
		{operator, false, "update leases.coordination.k8s.io/another -n kernel-gossip"},
		{operator, false, "create leases.coordination.k8s.io -n kube-system"},
		{operator, false, "list pods -A"},
		{operator, false, "delete pods -A"},
		{operator, false, "get secrets -n kernel-gossip"},
		{operator, false, "update pods --subresource=finalizers -A"},
	} {
		// An answer of "no" is an exit code of 1, too.
		out, err := s.Kubectl(t.Context(), nil, append([]string{"auth", "can-i", "--as", c.who}, strings.Fields(c.args)...)...)
		assert.Equal(t, c.may, strings.TrimSpace(out) == "yes", "%s: %s: %v", c.who, c.args, err)
	}
}

// podSecurity tries the pods in the namespaces that the manifests make, and the
// exporter's at stricter levels, too. The admission plugin answers.
func (s server) podSecurity(t *testing.T) {
	for _, level := range []string{"baseline", "restricted"} {
		s.kubectl(t, "create", "namespace", level)
		s.kubectl(t, "label", "namespace", level, "pod-security.kubernetes.io/enforce="+level)
	}

	var d appsv1.Deployment
	require.NoError(t, json.Unmarshal([]byte(s.kubectl(t, "-n", "kernel-gossip", "get", "deployment", "kernel-gossip-operator", "-o", "json")), &d))
	assert.Equal(t, "restricted", s.kubectl(t, "get", "namespace", "kernel-gossip", "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`))
	require.NoError(t, s.admit(t.Context(), "kernel-gossip", d.Spec.Template.Spec))

	var ds appsv1.DaemonSet
	require.NoError(t, json.Unmarshal([]byte(s.kubectl(t, "-n", "kernel-gossip-node", "get", "daemonset", "kernel-gossip-exporter", "-o", "json")), &ds))
	require.NoError(t, s.admit(t.Context(), "kernel-gossip-node", ds.Spec.Template.Spec))
	err := s.admit(t.Context(), "kernel-gossip", ds.Spec.Template.Spec)
	require.ErrorContains(t, err, "violates PodSecurity", "the operator's namespace refuses the exporter")

	// These and no others: the capabilities, the cgroup mount, and root.
	for level, wants := range map[string][]string{
		"baseline":   {`must not include "BPF", "PERFMON"`, "hostPath volumes"},
		"restricted": {`must not include "BPF", "PERFMON"`, `uses restricted volume type "hostPath"`, "runAsNonRoot", "runAsUser=0"},
	} {
		err := s.admit(t.Context(), level, ds.Spec.Template.Spec)
		require.Error(t, err)
		_, why, found := strings.Cut(err.Error(), `violates PodSecurity "`+level+`:latest": `)
		require.True(t, found, err)
		for _, want := range wants {
			assert.Contains(t, why, want)
		}
		for _, no := range []string{"privileged", "hostPID", "host namespaces", "seccompProfile", "allowPrivilegeEscalation"} {
			assert.NotContains(t, why, no)
		}
	}
}

// admit tries a pod in a namespace without keeping it.
func (s server) admit(ctx context.Context, namespace string, spec corev1.PodSpec) error {
	p := corev1.Pod{}
	p.APIVersion, p.Kind, p.Name, p.Namespace = "v1", "Pod", "try", namespace
	p.Spec = spec
	p.Spec.ServiceAccountName = "" // there is none in that namespace
	off := false
	p.Spec.AutomountServiceAccountToken = &off
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, nil, "-n", namespace, "create", "serviceaccount", "default"); err != nil && !strings.Contains(err.Error(), "already exists") {
		return err
	}
	_, err = s.Kubectl(ctx, strings.NewReader(string(body)), "create", "--dry-run=server", "-f", "-")
	return err
}

// token applies the variant in which exporter and operator share a secret.
func (s server) token(t *testing.T) {
	out := s.kubectl(t, "apply", "-k", root+"token")
	assert.Contains(t, out, "daemonset.apps/kernel-gossip-exporter configured")
	assert.Contains(t, out, "deployment.apps/kernel-gossip-operator configured")
	for _, c := range []struct{ namespace, kind, flag string }{
		{"kernel-gossip-node", "daemonset/kernel-gossip-exporter", "--whisper.token-file="},
		{"kernel-gossip", "deployment/kernel-gossip-operator", "--web.bearer-token-file="},
	} {
		args := s.kubectl(t, "-n", c.namespace, "get", c.kind, "-o", "jsonpath={.spec.template.spec.containers[0].args}")
		assert.Contains(t, args, c.flag+"/etc/kernel-gossip/token")
		assert.Equal(t, "kernel-gossip-token", s.kubectl(t, "-n", c.namespace, "get", c.kind, "-o",
			"jsonpath={.spec.template.spec.volumes[?(@.name=='token')].secret.secretName}"))
	}
}

// TestDockerfiles holds the images to what the manifests say of them.
func TestDockerfiles(t *testing.T) {
	for _, name := range []string{"exporter", "operator"} {
		b, err := os.ReadFile(root + "Dockerfile." + name)
		require.NoError(t, err)
		last := string(b)[strings.LastIndex(string(b), "\nFROM "):]
		assert.Contains(t, last, "FROM scratch\n")
		assert.Contains(t, last, `ENTRYPOINT ["/kernel-gossip-`+name+`"]`)
		goMod, err := os.ReadFile("../../go.mod")
		require.NoError(t, err)
		_, version, _ := strings.Cut(string(goMod), "\ngo ")
		version, _, _ = strings.Cut(version, "\n")
		assert.Contains(t, string(b), "golang:"+version[:strings.LastIndex(version, ".")], "the toolchain of go.mod")
	}
}
