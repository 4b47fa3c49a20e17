package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
)

// helm is Helm's own command, at go.mod's version, with a home that is the test's.
type helm struct{ home, kubeconfig string }

func (h helm) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "helm"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig,
		"HELM_CACHE_HOME="+h.home, "HELM_CONFIG_HOME="+h.home, "HELM_DATA_HOME="+h.home)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// TestTemplate holds what the manifests are rendered by to what helm template prints.
func TestTemplate(t *testing.T) {
	h := helm{home: t.TempDir(), kubeconfig: os.DevNull}
	out, err := h.run(t.Context(), "template", Release, dir, "--namespace", Namespace)
	require.NoError(t, err)
	rendered, err := Render(t.Context(), dir, nil)
	require.NoError(t, err)
	var ours []string
	for _, text := range rendered {
		ours = append(ours, text)
	}
	assert.Equal(t, objects(t, strings.Join(ours, "\n---\n")), objects(t, out))

	_, err = h.run(t.Context(), "template", Release, dir, "--set", "operator.replica=3")
	require.ErrorContains(t, err, "additional properties 'replica' not allowed", "a value with a typing error is named")
}

// objects are the documents of text by kind, namespace and name.
func objects(t *testing.T, text string) map[string]any {
	t.Helper()
	found := map[string]any{}
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var o unstructured.Unstructured
		require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &o.Object))
		if o.Object != nil {
			found[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o.Object
		}
	}
	require.NotEmpty(t, found)
	return found
}

// TestLife takes a release from its first install to its last: what an upgrade brings,
// what an uninstall keeps.
func TestLife(t *testing.T) {
	s, err := apiserver.Start(t.Context(), apiserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	h := helm{home: t.TempDir(), kubeconfig: s.Kubeconfig()}
	kubectl := func(in string, args ...string) string {
		t.Helper()
		out, err := s.Kubectl(t.Context(), strings.NewReader(in), args...)
		require.NoError(t, err)
		return out
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := h.run(t.Context(), append(args, "--namespace", Namespace)...)
		require.NoError(t, err)
		return out
	}
	const crd = "crd/kernelwhispers.kernel-gossip.dev"
	column := func() string {
		return kubectl("", "get", crd, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}")
	}

	notes := must("install", Release, older(t), "--create-namespace")
	assert.Contains(t, notes, "kubectl get kernelwhispers -A")
	assert.Contains(t, notes, "kubectl -n kernel-gossip-node port-forward daemonset/kernel-gossip-exporter 9955")
	require.NotContains(t, column(), "Severity", "the older chart's CRD")
	kubectl("", "wait", crd, "--for=condition=Established", "--timeout=30s")
	kubectl("", "create", "namespace", "shop")
	kubectl(`apiVersion: kernel-gossip.dev/v1alpha1
kind: KernelWhisper
metadata: {name: web-0-kw, namespace: shop}
spec: {signalType: cpu_throttle, podName: web-0, severity: warning, source: manual, detectedAt: "2026-01-02T03:04:05Z", evidence: {throttlePercentage: 92.3}}
`, "apply", "-f", "-")

	must("upgrade", Release, dir)
	assert.Contains(t, column(), "Severity", "an upgrade brings the new CRD")
	assert.Equal(t, "web-0", kubectl("", "-n", "shop", "get", "kw", "web-0-kw", "-o", "jsonpath={.spec.podName}"))

	generation := func() string {
		return kubectl("", "get", "-A", "-l", "app.kubernetes.io/part-of=kernel-gossip", "daemonset,deployment", "-o", "jsonpath={.items[*].metadata.generation}")
	}
	before := generation()
	must("upgrade", Release, dir, "--reset-values")
	assert.Equal(t, before, generation(), "the same again rolls nothing")
	must("upgrade", Release, dir, "--set", "operator.replicas=3,exporter.collectors.syscalls=false")
	assert.NotEqual(t, before, generation())
	assert.Contains(t, kubectl("", "-n", "kernel-gossip-node", "get", "ds", "kernel-gossip-exporter", "-o", "jsonpath={.spec.template.spec.containers[0].args}"), "--no-collector.syscalls")

	must("uninstall", Release)
	assert.Empty(t, kubectl("", "get", "-A", "-l", "app.kubernetes.io/part-of=kernel-gossip", "--ignore-not-found",
		"daemonset,deployment,service,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,networkpolicy,poddisruptionbudget,priorityclass", "-o", "name"))
	assert.Equal(t, "web-0", kubectl("", "-n", "shop", "get", "kw", "web-0-kw", "-o", "jsonpath={.spec.podName}"), "an uninstall keeps CRDs and objects")

	// There is no controller here to finish the namespace off.
	kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kernel-gossip-node"},"spec":{"finalizers":[]}}`,
		"replace", "--raw", "/api/v1/namespaces/kernel-gossip-node/finalize", "-f", "-")
	must("install", Release, dir)
	must("uninstall", Release)

	t.Run("over CRDs that kubectl made", func(t *testing.T) {
		kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kernel-gossip-node"},"spec":{"finalizers":[]}}`,
			"replace", "--raw", "/api/v1/namespaces/kernel-gossip-node/finalize", "-f", "-")
		kubectl("", "delete", "crd", "--all")
		kubectl("", "apply", "--server-side", "-f", root+"/deploy/crds")
		_, err := h.run(t.Context(), "install", Release, dir, "--namespace", Namespace)
		require.ErrorContains(t, err, "cannot be imported into the current release")
		must("install", Release, dir, "--take-ownership", "--force-conflicts")
	})
}

// older is the chart as it might have been: its CRD lacks a column.
func older(t *testing.T) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "kernel-gossip")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	path := filepath.Join(to, "files", "crds", "kernel-gossip.dev_kernelwhispers.yaml")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	old := strings.Replace(string(b), "    - jsonPath: .spec.severity\n      name: Severity\n      type: string\n", "", 1)
	require.NotEqual(t, string(b), old)
	require.NoError(t, os.WriteFile(path, []byte(old), 0o644))
	return to
}
