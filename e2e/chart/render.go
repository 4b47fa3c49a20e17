// Package chart renders deploy/chart as Helm does, by Helm's own packages, and
// derives from it the plain manifests and the files that the chart carries.
package chart

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

const (
	// Release and Namespace are those of the plain manifests.
	Release   = "kernel-gossip"
	Namespace = "kernel-gossip"
)

// Render returns what `helm template` prints of the chart in dir: YAML by the name
// of the template, without those that came out empty and without the notes. Values
// that the chart's schema refuses are an error that names the field.
func Render(ctx context.Context, dir string, values map[string]any) (map[string]string, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("loading the chart in %s: %w", dir, err)
	}
	merged, err := util.ToRenderValues(c, values, common.ReleaseOptions{
		Name: Release, Namespace: Namespace, Revision: 1, IsInstall: true,
	}, common.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("merging the values of the chart in %s: %w", dir, err)
	}
	out, err := engine.Engine{Strict: true}.RenderWithContext(ctx, c, merged)
	if err != nil {
		return nil, fmt.Errorf("rendering the chart in %s: %w", dir, err)
	}
	rendered := map[string]string{}
	for path, text := range out {
		name := strings.TrimPrefix(path, c.Name()+"/templates/")
		if text = documents(text); text != "" && filepath.Ext(name) == ".yaml" {
			rendered[name] = text
		}
	}
	return rendered, nil
}

// documents drops the separators before the first document and blank lines at the ends.
func documents(text string) string {
	text = strings.TrimSpace(text)
	for {
		rest, found := strings.CutPrefix(text, "---\n")
		if !found {
			break
		}
		text = strings.TrimSpace(rest)
	}
	if text == "" {
		return ""
	}
	return text + "\n"
}

// Generate copies into the chart what it carries of other directories, and writes
// the manifests that are rendered from it. root is the repository's.
func Generate(ctx context.Context, root string) error {
	dir := filepath.Join(root, "deploy", "chart")
	for _, c := range []struct{ from, pattern, to string }{
		{"deploy/crds", "*.yaml", "crds"},
		{"rules/manifests", "*.yaml", "rules"}, // not the rule files, whose YAML merges repeat keys
		{"dashboards", "*.json", "dashboards"},
	} {
		files, err := read(os.DirFS(filepath.Join(root, c.from)), c.pattern)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, "files", c.to), c.pattern, files); err != nil {
			return err
		}
	}
	for _, set := range []struct {
		to     string
		values map[string]any
		only   []string // templates; nil: all that come out
	}{
		{"manifests", map[string]any{
			"namespace": map[string]any{"create": true},
			"crds":      map[string]any{"install": false}, // deploy/crds, by the Kustomization
		}, nil},
		{"monitoring", map[string]any{"monitoring": map[string]any{
			"podMonitor":     map[string]any{"enabled": true},
			"serviceMonitor": map[string]any{"enabled": true},
		}}, []string{"monitors.yaml"}},
	} {
		rendered, err := Render(ctx, dir, set.values)
		if err != nil {
			return err
		}
		files := map[string]string{}
		for name, text := range rendered {
			if set.only == nil || slices.Contains(set.only, name) {
				files[order(name)] = "# Rendered from deploy/chart by make generate. Do not edit.\n" + text
			}
		}
		if err := write(filepath.Join(root, "deploy", set.to), "*.yaml", files); err != nil {
			return err
		}
	}
	return nil
}

// order names the manifest of a template so that kubectl apply -f, which goes by
// name, makes the namespaces first.
func order(template string) string {
	if template == "namespaces.yaml" {
		return "0-" + template
	}
	return template
}

// read returns the files that match, by name.
func read(dir fs.FS, pattern string) (map[string]string, error) {
	names, err := fs.Glob(dir, pattern)
	if err != nil {
		return nil, err
	}
	files := make(map[string]string, len(names))
	for _, name := range names {
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		files[name] = string(b)
	}
	return files, nil
}

// write makes the files that match pattern in dir exactly these.
func write(dir, pattern string, files map[string]string) error {
	stale, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return err
	}
	for _, path := range stale {
		if _, ok := files[filepath.Base(path)]; ok {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
