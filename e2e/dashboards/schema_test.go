// Package dashboards holds the dashboards to the schema that Grafana publishes.
package dashboards

import (
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/dashboards"
)

// strict tells what Grafana's schema has against a dashboard: fields that it lacks or
// that nobody knows, also in the options of each kind of panel and in the queries of
// its data source, and values of the wrong type.
func strict(file []byte) error {
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard //nolint:staticcheck // the classic format, in which these are written
	// Without a fault the error is there all the same, and empty.
	if err := d.UnmarshalJSONStrict(file); err != nil && err.Error() != "" {
		return err
	}
	return d.Validate()
}

func TestSchema(t *testing.T) {
	names, err := fs.Glob(dashboards.Files(), dashboards.Pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		file, err := fs.ReadFile(dashboards.Files(), name)
		require.NoError(t, err)
		assert.NoError(t, strict(file), name)
	}
}

// The schema is looked into down to what only one kind of panel has.
func TestSchemaFindsFaults(t *testing.T) {
	file, err := fs.ReadFile(dashboards.Files(), "kernel-gossip-container.json")
	require.NoError(t, err)
	type object = map[string]any
	first := func(d object, kind string) object {
		for _, p := range d["panels"].([]any) {
			if p := p.(object); p["type"] == kind {
				return p
			}
		}
		t.Fatalf("no panel of type %s", kind)
		return nil
	}
	for name, spoil := range map[string]func(d object){
		"colour":     func(d object) { d["colour"] = "dark" },
		"editable":   func(d object) { d["editable"] = "no" },
		"gridPosX":   func(d object) { first(d, "stat")["gridPosX"] = 1 },
		"exprs":      func(d object) { first(d, "stat")["targets"].([]any)[0].(object)["exprs"] = "up" },
		"textMode":   func(d object) { first(d, "stat")["options"].(object)["textMode"] = 3 },
		"xFields":    func(d object) { first(d, "trend")["options"].(object)["xFields"] = "x" },
		"cellGap":    func(d object) { first(d, "heatmap")["options"].(object)["cellGap"] = "wide" },
		"showHeader": func(d object) { delete(first(d, "table")["options"].(object), "showHeader") },
		"lineWidths": func(d object) {
			first(d, "timeseries")["fieldConfig"].(object)["defaults"].(object)["custom"].(object)["lineWidths"] = 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			var d object
			require.NoError(t, json.Unmarshal(file, &d))
			spoil(d)
			spoiled, err := json.Marshal(d)
			require.NoError(t, err)
			assert.ErrorContains(t, strict(spoiled), name)
		})
	}
}
