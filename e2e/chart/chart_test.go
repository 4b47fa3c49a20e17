package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
	"github.com/kernel-gossip/kernel-gossip/exporter/allow"
)

const (
	root = "../.."
	dir  = root + "/deploy/chart"
)

type values = map[string]any

// everything turns on what needs no other product's CRDs.
func everything() values {
	return values{
		"token":      values{"secretName": "kernel-gossip-token"},
		"dashboards": values{"enabled": true},
		"image":      values{"registry": "registry.example/team/", "tag": "v1", "pullSecrets": []any{"pull"}},
		"exporter": values{
			"security":   values{"allow": []any{values{"namespaces": []any{"ci"}, "labels": values{"app": "builder"}, "events": []any{"unshare", "mount"}}}},
			"collectors": values{"syscalls": false, "whatif": true}, "kubelet": values{"insecureSkipVerify": true},
			"extraArgs": []any{"--log.level=debug"}, "capabilities": []any{"BPF", "PERFMON", "SYS_RESOURCE"},
			"seccompProfile": values{"type": "Localhost", "localhostProfile": "kernel-gossip-exporter.json"},
			"podAnnotations": values{"a": "b"}, "podLabels": values{"c": "d"}, "nodeSelector": values{"e": "f"}, "maxUnavailable": 1,
		},
		"operator": values{
			"replicas": 3, "extraArgs": []any{"--whisper.ttl=72h"}, "priorityClassName": "system-cluster-critical",
			"podAnnotations": values{"a": "b"}, "podLabels": values{"c": "d"}, "nodeSelector": values{"e": "f"},
			"tolerations": []any{values{"operator": "Exists"}}, "resize": values{"enabled": true, "maxCPU": 1.5},
		},
	}
}

func TestLint(t *testing.T) {
	for name, v := range map[string]values{"defaults": {}, "everything": everything()} {
		l := lint.RunAll(dir, v, Namespace)
		for _, m := range l.Messages {
			assert.Less(t, m.Severity, support.WarningSev, "%s: %s", name, m)
		}
	}
}

func TestSchema(t *testing.T) {
	for _, c := range []struct {
		field string
		v     values
	}{
		{"/operator/replicas", values{"operator": values{"replicas": "two"}}},
		{"/operator/replicas", values{"operator": values{"replicas": -1}}},
		{"replica", values{"operator": values{"replica": 2}}},
		{"exporters", values{"exporters": values{}}},
		{"/exporter/namespace/name", values{"exporter": values{"namespace": values{"name": "Not_A_Name"}}}},
		{"/exporter/capabilities/0", values{"exporter": values{"capabilities": []any{"CAP-BPF"}}}},
		{"/exporter/capabilities/1", values{"exporter": values{"capabilities": []any{"BPF", "SYS_ADMIN"}}}},
		{"/exporter/seccompProfile", values{"exporter": values{"seccompProfile": values{"type": "Unconfined"}}}},
		{"/exporter/seccompProfile", values{"exporter": values{"seccompProfile": values{"type": "Localhost"}}}},
		{"/exporter/collectors/syscalls", values{"exporter": values{"collectors": values{"syscalls": "no"}}}},
		{"/exporter/security/allow/0", values{"exporter": values{"security": values{"allow": []any{values{"events": []any{"*"}}}}}}},
		{"/exporter/security/allow/0/events/0", values{"exporter": values{"security": values{"allow": []any{values{"namespaces": []any{"ci"}, "events": []any{"set ns"}}}}}}},
		{"/exporter/extraArgs/0", values{"exporter": values{"extraArgs": []any{"log.level=debug"}}}},
		{"/exporter/image/digest", values{"exporter": values{"image": values{"digest": "latest"}}}},
		{"/exporter/resources/limits/memory", values{"exporter": values{"resources": values{"limits": values{"memory": "384 MB"}}}}},
		{"/exporter/goMemLimit", values{"exporter": values{"goMemLimit": "160Mi"}}},
		{"/image/pullPolicy", values{"image": values{"pullPolicy": "Sometimes"}}},
		{"/priorityClass/value", values{"priorityClass": values{"value": 2000000000}}},
		{"/operator/resize/maxCPU", values{"operator": values{"resize": values{"maxCPU": 0}}}},
		{"/operator/resize/coolDown", values{"operator": values{"resize": values{"coolDown": "soon"}}}},
		{"/networkPolicy/from", values{"networkPolicy": values{"from": []any{}}}},
		{"/monitoring/podMonitor/interval", values{"monitoring": values{"podMonitor": values{"interval": "fast"}}}},
	} {
		_, err := Render(t.Context(), dir, c.v)
		require.Error(t, err, c.field)
		assert.Contains(t, err.Error(), c.field)
	}
}

// TestDocumented asks that each value is in the schema and in values.yaml, by the same
// path. What is open to any key (labels, resources) ends a path.
func TestDocumented(t *testing.T) {
	var defaults, schema map[string]any
	for file, into := range map[string]*map[string]any{"values.yaml": &defaults, "values.schema.json": &schema} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.NoError(t, yaml.UnmarshalStrict(b, into))
	}
	var compare func(path string, schema map[string]any, value any)
	compare = func(path string, schema map[string]any, value any) {
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			return
		}
		assert.Equal(t, false, schema["additionalProperties"], "%s: a typing error would pass", path)
		v, ok := value.(map[string]any)
		require.True(t, ok, "%s: the schema says object", path)
		for key := range v {
			assert.Contains(t, properties, key, "%s.%s: not in values.schema.json", path, key)
		}
		for key, p := range properties {
			switch sub, there := v[key]; {
			case path == "" && key == "global", path == ".exporter.resources", path == ".operator.resources":
			case !there:
				t.Errorf("%s.%s: not in values.yaml", path, key)
			default:
				compare(path+"."+key, p.(map[string]any), sub)
			}
		}
	}
	compare("", schema, defaults)
}

func TestRender(t *testing.T) {
	t.Run("values reach the objects", func(t *testing.T) {
		out, err := Render(t.Context(), dir, everything())
		require.NoError(t, err)
		for _, want := range []string{
			"image: registry.example/team/kernel-gossip-exporter:v1", "--no-collector.syscalls", "--collector.whatif", "--kubelet.insecure-skip-verify",
			"--whisper.token-file=/etc/kernel-gossip/token", "add: [BPF, PERFMON, SYS_RESOURCE]", `seccompProfile: {"localhostProfile":"kernel-gossip-exporter.json","type":"Localhost"}`, "maxUnavailable: 1", `"--log.level=debug"`,
		} {
			assert.Contains(t, out["exporter.yaml"], want)
		}
		for _, want := range []string{"replicas: 3", "--web.bearer-token-file=", "fsGroup: 65532", "priorityClassName: system-cluster-critical", "--resize.enabled", "--resize.max-cpu=1.5\n"} {
			assert.Contains(t, out["operator.yaml"], want)
		}
	})
	t.Run("the exporter can read the rules for security events", func(t *testing.T) {
		for name, security := range map[string]values{
			"rules":       everything()["exporter"].(values)["security"].(values),
			"no defaults": {"allowDefaults": false},
		} {
			out, err := Render(t.Context(), dir, values{"exporter": values{"security": security}})
			require.NoError(t, err)
			assert.Contains(t, out["exporter.yaml"], "--security.allow-file=/etc/kernel-gossip-security/allow.yaml\n")
			_, second, ok := strings.Cut(out["exporter.yaml"], "\n---\n")
			require.True(t, ok, out["exporter.yaml"])
			var config struct{ Data map[string]string }
			require.NoError(t, yaml.Unmarshal([]byte(second), &config))
			list, err := allow.Parse([]byte(config.Data["allow.yaml"]))
			require.NoError(t, err, name)
			assert.Equal(t, name == "rules", list.Events("ci", map[string]string{"app": "builder"})[bpf.SecurityUnshare], name)
			assert.Equal(t, name == "rules", list.Events("kube-system", nil)[bpf.SecurityBPF], name)
		}
		out, err := Render(t.Context(), dir, nil)
		require.NoError(t, err)
		assert.NotContains(t, out["exporter.yaml"], "allow-file", "the defaults need no file")
	})
	t.Run("a digest wins over the tag", func(t *testing.T) {
		digest := "sha256:" + strings.Repeat("a", 64)
		out, err := Render(t.Context(), dir, values{"exporter": values{"image": values{"digest": digest}}})
		require.NoError(t, err)
		assert.Contains(t, out["exporter.yaml"], "image: kernel-gossip-exporter@"+digest+"\n")
	})
	t.Run("monitoring", func(t *testing.T) {
		on := values{"enabled": true}
		out, err := Render(t.Context(), dir, values{"monitoring": values{
			"podMonitor": on, "serviceMonitor": on, "prometheusRule": on, "labels": values{"release": "prometheus"},
		}})
		require.NoError(t, err)
		rules, err := filepath.Glob(root + "/rules/*.rules.yml")
		require.NoError(t, err)
		assert.Equal(t, len(rules), strings.Count(out["prometheus-rules.yaml"], "kind: PrometheusRule"))
		assert.Contains(t, out["prometheus-rules.yaml"], "{{ $value | humanizePercentage }}", "Prometheus's templates are not Helm's")
		for _, name := range []string{"monitors.yaml", "prometheus-rules.yaml"} {
			assert.Contains(t, out[name], "release: prometheus")
			for _, doc := range strings.Split(out[name], "\n---\n") {
				require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &map[string]any{}))
			}
		}
	})
	t.Run("one alone", func(t *testing.T) {
		for _, off := range []string{"operator", "exporter"} {
			out, err := Render(t.Context(), dir, values{off: values{"enabled": false}})
			require.NoError(t, err)
			for name, text := range out {
				assert.NotContains(t, text, "name: kernel-gossip-"+off+"\n", name)
			}
		}
	})
}

// TestFlags holds the flags that the chart passes to those that the two binaries have,
// by the generated tables of the README.
func TestFlags(t *testing.T) {
	out, err := Render(t.Context(), dir, values{
		"token": values{"secretName": "x"}, "exporter": values{"kubelet": values{"insecureSkipVerify": true}}, "operator": values{"resize": values{"enabled": true}},
	})
	require.NoError(t, err)
	readme, err := os.ReadFile(root + "/README.md") // whose tables are generated from the flags
	require.NoError(t, err)
	for _, name := range []string{"exporter.yaml", "operator.yaml"} {
		flags := regexp.MustCompile(`(?m)^ +- (--[a-z.-]+)`).FindAllStringSubmatch(out[name], -1)
		require.NotEmpty(t, flags)
		for _, f := range flags {
			assert.Contains(t, string(readme), fmt.Sprintf("| `%s` |", f[1]), name)
		}
	}
}

// TestServer gives what the chart renders to a real API server.
func TestServer(t *testing.T) {
	s, err := apiserver.Start(t.Context(), apiserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	kubectl := func(in string, args ...string) string {
		t.Helper()
		out, err := s.Kubectl(t.Context(), strings.NewReader(in), args...)
		require.NoError(t, err)
		return out
	}
	kubectl("", "apply", "-f", root+"/deploy/manifests/0-namespaces.yaml")

	for name, v := range map[string]values{"defaults": {}, "everything": everything()} {
		out, err := Render(t.Context(), dir, v)
		require.NoError(t, err)
		for template, text := range out {
			kubectl(text, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
			t.Logf("%s: %s passes", name, template)
		}
	}

	// The right to change pods is granted only where it is asked for.
	for _, enabled := range []bool{false, true} {
		out, err := Render(t.Context(), dir, values{"operator": values{"resize": values{"enabled": enabled}}})
		require.NoError(t, err)
		kubectl(out["operator-rbac.yaml"], "apply", "--server-side", "-f", "-")
		for _, right := range [][]string{{"patch", "pods", "--subresource=resize"}, {"get", "namespaces"}, {"patch", "pods"}} {
			want := "no"
			if enabled && right[len(right)-1] != "pods" {
				want = "yes"
			}
			got, err := s.Kubectl(t.Context(), nil, append([]string{"auth", "can-i", "--all-namespaces", "--as=system:serviceaccount:kernel-gossip:kernel-gossip-operator"}, right...)...)
			assert.Equal(t, want, strings.TrimSpace(got), "%v, enabled %t: %v", right, enabled, err)
		}
	}

	// helm upgrade and helm uninstall heed the annotation.
	out, err := Render(t.Context(), dir, values{})
	require.NoError(t, err)
	kubectl(out["crds.yaml"], "apply", "--server-side", "-f", "-")
	kept := kubectl("", "get", "crds", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.helm\.sh/resource-policy}{"\n"}{end}`)
	assert.Equal(t, "kernelwhispers.kernel-gossip.dev keep\npodbirthcertificates.kernel-gossip.dev keep\n", kept)
}
