// Package pxl makes from the scripts in scripts/ what Pixie runs: a ConfigMap of
// each, which Pixie's query broker schedules, and a form for px run, whose output
// kernel-gossip-operator pixie-bridge reads.
package pxl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	// Endpoint is the operator's Service, as the manifests name it.
	Endpoint = "kernel-gossip-operator.kernel-gossip.svc.cluster.local:4317"
	// Period of a script in seconds; its window is as long.
	Period = 30
	// Namespace is Pixie's own: the query broker looks nowhere else.
	Namespace = "pl"

	edited = "Generated from pxl/scripts by make generate. DO NOT EDIT."
)

// Script is one folder of scripts/.
type Script struct {
	Name string
	// Data is data.pxl, which exports.
	Data string
	// Tracepoint is tracepoint.pxl, empty where Data reads a table of Pixie's own.
	Tracepoint string
}

// Scripts reads the folders of dir.
func Scripts(dir string) ([]Script, error) {
	folders, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the scripts: %w", err)
	}
	var all []Script
	for _, folder := range folders {
		s := Script{Name: folder.Name()}
		data, err := os.ReadFile(filepath.Join(dir, s.Name, "data.pxl"))
		if err != nil {
			return nil, fmt.Errorf("reading script %s: %w", s.Name, err)
		}
		tracepoint, err := os.ReadFile(filepath.Join(dir, s.Name, "tracepoint.pxl"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading script %s: %w", s.Name, err)
		}
		s.Data, s.Tracepoint = string(data), string(tracepoint)
		all = append(all, s)
	}
	return all, nil
}

// ConfigMap schedules the script, as query_broker/script_runner/config_map_source.go
// reads it.
func (s Script) ConfigMap() ([]byte, error) {
	m := corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "kernel-gossip-" + strings.ReplaceAll(s.Name, "_", "-"), Namespace: Namespace,
			Labels: map[string]string{"purpose": "cron-script", "app.kubernetes.io/part-of": "kernel-gossip"},
		},
		Data: map[string]string{
			"script.pxl":   s.Data,
			"configs.yaml": fmt.Sprintf("otelEndpointConfig:\n  url: %s\n  insecure: true\n", Endpoint),
			"cron.yaml":    fmt.Sprintf("frequency_s: %d\n", Period),
		},
	}
	content, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding the ConfigMap of %s: %w", s.Name, err)
	}
	return append([]byte("# "+edited+"\n"), content...), nil
}

// Run is the script for px run: over the last minute, without the export.
func (s Script) Run() (string, error) {
	const start, end, export = "start_time = px.plugin.start_time\n", "end_time = px.plugin.end_time\n", "px.export("
	body, _, exports := strings.Cut(s.Data, export)
	if !exports || !strings.Contains(body, start) || !strings.Contains(body, end) {
		return "", fmt.Errorf("script %s: want the lines %q and %q, and px.export last", s.Name, strings.TrimSpace(start), strings.TrimSpace(end))
	}
	body = strings.Replace(body, start, "start_time = '-1m'\n", 1)
	body = strings.Replace(body, end, "end_time = px.now()\n", 1)
	return "# " + edited + "\n" + body, nil
}

// Generate returns the files to be under pxl/, by path.
func Generate(scripts []Script) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, s := range scripts {
		m, err := s.ConfigMap()
		if err != nil {
			return nil, err
		}
		run, err := s.Run()
		if err != nil {
			return nil, err
		}
		files["configmaps/"+s.Name+".yaml"] = m
		files["run/"+s.Name+".pxl"] = []byte(run)
	}
	return files, nil
}
