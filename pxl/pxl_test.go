package pxl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/pxl/check"
)

func load(t *testing.T) ([]Script, *check.Facts) {
	t.Helper()
	scripts, err := Scripts("scripts")
	require.NoError(t, err)
	require.NotEmpty(t, scripts)
	facts, err := check.Pixie()
	require.NoError(t, err)
	return scripts, facts
}

// Every script uses what Pixie has, and exports what the operator takes.
func TestScripts(t *testing.T) {
	scripts, facts := load(t)
	for _, s := range scripts {
		t.Run(s.Name, func(t *testing.T) {
			deployed, faults := check.Script(s.Tracepoint, facts, nil)
			for _, f := range faults {
				t.Errorf("scripts/%s/tracepoint.pxl: %v", s.Name, f)
			}
			got, faults := check.Script(s.Data, facts, deployed.Tables)
			for _, f := range faults {
				t.Errorf("scripts/%s/data.pxl: %v", s.Name, f)
			}
			// A scheduled script can't deploy tracepoints (pixie-io/pixie#646).
			assert.NotContains(t, s.Data, "pxtrace")
			assert.LessOrEqual(t, strings.Count(s.Data, "\n"), 70, "a screenful")
			require.Len(t, got.Displayed, 1)
			for signal, columns := range got.Displayed {
				assert.Contains(t, columns, "time_")
				assert.Contains(t, columns, "pod")
				for _, name := range append(got.Metrics, got.Spans...) {
					prefix, value, _ := strings.Cut(strings.TrimPrefix(name, "kernel_gossip."), ".")
					assert.Equal(t, signal, prefix, name)
					assert.Contains(t, columns, value, "px run shows what px.export exports")
				}
			}
			require.NotEmpty(t, append(got.Metrics, got.Spans...))

			run, err := s.Run()
			require.NoError(t, err)
			got, faults = check.Script(run, facts, deployed.Tables)
			for _, f := range faults {
				t.Errorf("run/%s.pxl: %v", s.Name, f)
			}
			assert.Len(t, got.Displayed, 1)
			assert.Empty(t, got.Metrics)

			var manifest struct{ Short, Long string }
			content, err := os.ReadFile(filepath.Join("scripts", s.Name, "manifest.yaml"))
			require.NoError(t, err)
			require.NoError(t, yaml.UnmarshalStrict(content, &manifest))
			assert.NotEmpty(t, manifest.Short)
			assert.NotEmpty(t, manifest.Long)
		})
	}
}

// The batches that the operator is tested with are of the scripts' shape.
func TestBatchesAreOfTheScripts(t *testing.T) {
	scripts, facts := load(t)
	for _, s := range scripts {
		deployed, _ := check.Script(s.Tracepoint, facts, nil)
		got, _ := check.Script(s.Data, facts, deployed.Tables)
		content, err := os.ReadFile("testdata/otlp/" + s.Name + ".json")
		require.NoError(t, err)
		var batch struct {
			ResourceMetrics []struct {
				ScopeMetrics []struct{ Metrics []struct{ Name string } }
			}
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []struct{ Name string } }
			}
		}
		require.NoError(t, json.Unmarshal(content, &batch))
		for _, r := range batch.ResourceMetrics {
			var names []string
			for _, m := range r.ScopeMetrics[0].Metrics {
				names = append(names, m.Name)
			}
			assert.Equal(t, got.Metrics, names, s.Name)
		}
		for _, r := range batch.ResourceSpans {
			assert.Equal(t, got.Spans[0], r.ScopeSpans[0].Spans[0].Name, s.Name)
		}
		assert.NotZero(t, len(batch.ResourceMetrics)+len(batch.ResourceSpans), s.Name)
	}
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	scripts, _ := load(t)
	files, err := Generate(scripts)
	require.NoError(t, err)
	for path, want := range files {
		got, err := os.ReadFile(path)
		require.NoError(t, err, "run make generate")
		assert.Equal(t, string(want), string(got), "%s is stale: run make generate", path)
	}
	for _, pattern := range []string{"configmaps/*", "run/*"} {
		there, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range there {
			assert.Contains(t, files, path, "no script makes it")
		}
	}
}

func TestConfigMap(t *testing.T) {
	scripts, _ := load(t)
	i := slices.IndexFunc(scripts, func(s Script) bool { return s.Name == "tcp_drops" })
	content, err := scripts[i].ConfigMap()
	require.NoError(t, err)
	var m corev1.ConfigMap
	require.NoError(t, yaml.UnmarshalStrict(content, &m))
	assert.Equal(t, "kernel-gossip-tcp-drops", m.Name)
	assert.Equal(t, "cron-script", m.Labels["purpose"])
	assert.Equal(t, scripts[i].Data, m.Data["script.pxl"])
	// As src/shared/scripts/config.go and script_runner of Pixie read them.
	var configs struct {
		OtelEndpointConfig struct {
			URL      string            `json:"url"`
			Headers  map[string]string `json:"headers"`
			Insecure bool              `json:"insecure"`
		} `json:"otelEndpointConfig"`
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(m.Data["configs.yaml"]), &configs))
	assert.Equal(t, Endpoint, configs.OtelEndpointConfig.URL)
	var cron struct {
		FrequencyS int64 `json:"frequency_s"`
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(m.Data["cron.yaml"]), &cron))
	assert.EqualValues(t, Period, cron.FrequencyS)
}

func TestRunNeedsTheForm(t *testing.T) {
	_, err := Script{Name: "x", Data: "import px\n"}.Run()
	assert.ErrorContains(t, err, "script x: want the lines")
}
