package dashboards_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/dashboards"
	"github.com/kernel-gossip/kernel-gossip/dashboards/build"
)

// These read the files as Grafana does, apart from what writes them.
type (
	dashboard struct {
		UID         string
		Title       string
		Description string
		Tags        []string
		Editable    bool
		Refresh     string
		Links       []link
		Annotations struct{ List []annotation }
		Templating  struct{ List []variable }
		Panels      []panel
	}
	link struct {
		Title string
		Type  string
		URL   string
		Tags  []string
	}
	annotation struct {
		Name       string
		Datasource source
		Expr       string
	}
	source   struct{ Type, UID string }
	variable struct {
		Name       string
		Label      string
		Type       string
		Query      string
		Datasource source
		IncludeAll bool
		Multi      bool
		AllValue   string
		Refresh    int
	}
	panel struct {
		ID          int
		Type        string
		Title       string
		Description string
		Datasource  source
		GridPos     struct{ X, Y, W, H int }
		Targets     []target
		FieldConfig struct {
			Defaults struct {
				Unit       string
				Thresholds struct{ Steps []step }
				Links      []link
			}
			Overrides []struct {
				Matcher    struct{ ID, Options string }
				Properties []struct {
					ID    string
					Value json.RawMessage
				}
			}
		}
		Transformations []struct {
			ID      string
			Options struct {
				RenameByName map[string]string
			}
		}
		Options map[string]any
	}
	step struct {
		Color string
		Value *float64
	}
	target struct {
		RefID        string
		Datasource   source
		Expr         string
		LegendFormat string
		Format       string
		Instant      bool
		Range        bool
	}
)

func all(t *testing.T) []dashboard {
	t.Helper()
	names, err := fs.Glob(dashboards.Files(), dashboards.Pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	var out []dashboard
	for _, name := range names {
		b, err := fs.ReadFile(dashboards.Files(), name)
		require.NoError(t, err)
		var d dashboard
		require.NoError(t, json.Unmarshal(b, &d), name)
		assert.Equal(t, name, d.UID+".json")
		out = append(out, d)
	}
	return out
}

// content is the panels that show something.
func (d dashboard) content() []panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p panel) bool { return p.Type == "row" })
}

func (p panel) String() string { return fmt.Sprintf("panel %d, %q", p.ID, p.Title) }

func TestFilesAreCurrent(t *testing.T) {
	var want, manifests []string
	for _, d := range build.All() {
		file, err := d.JSON()
		require.NoError(t, err)
		committed, err := fs.ReadFile(dashboards.Files(), d.File())
		require.NoError(t, err)
		assert.Equal(t, string(file), string(committed), "%s is stale: run make generate", d.File())
		want = append(want, d.File())

		manifest, err := dashboards.ConfigMap(d.UID, file)
		require.NoError(t, err)
		name := filepath.Join("manifests", d.UID+".yaml")
		committed, err = os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, string(manifest), string(committed), "%s is stale: run make generate", name)
		manifests = append(manifests, name)
	}
	found, err := fs.Glob(dashboards.Files(), dashboards.Pattern)
	require.NoError(t, err)
	assert.ElementsMatch(t, want, found)
	found, err = filepath.Glob("manifests/*")
	require.NoError(t, err)
	assert.ElementsMatch(t, manifests, found)
}

// The sidecar takes ConfigMaps by this label and hands Grafana the file in them.
func TestConfigMapHoldsTheFile(t *testing.T) {
	b, err := dashboards.ConfigMap("x", []byte("{\"a\": \"é\\n\"}\n"))
	require.NoError(t, err)
	var got struct {
		Kind     string
		Metadata struct {
			Name   string
			Labels map[string]string
		}
		Data map[string]string
	}
	require.NoError(t, yaml.Unmarshal(b, &got))
	assert.Equal(t, "ConfigMap", got.Kind)
	assert.Equal(t, "x", got.Metadata.Name)
	assert.Equal(t, "1", got.Metadata.Labels["grafana_dashboard"])
	assert.Equal(t, map[string]string{"x.json": "{\"a\": \"é\\n\"}\n"}, got.Data)
}

func TestIdentifiers(t *testing.T) {
	uids, titles := map[string]bool{}, map[string]bool{}
	for _, d := range all(t) {
		assert.Regexp(t, `^[a-z0-9-]{1,40}$`, d.UID)
		assert.False(t, uids[d.UID], d.UID)
		assert.False(t, titles[d.Title], d.Title)
		uids[d.UID], titles[d.Title] = true, true
		assert.NotEmpty(t, d.Description, d.UID)
		assert.Equal(t, []string{"kernel-gossip"}, d.Tags, d.UID)

		ids, names := map[int]bool{}, map[string]bool{}
		for _, p := range d.Panels {
			assert.Positive(t, p.ID)
			assert.False(t, ids[p.ID], "%s: two panels %d", d.UID, p.ID)
			ids[p.ID] = true
			if p.Type != "row" {
				assert.False(t, names[p.Title], "%s: two panels %q", d.UID, p.Title)
				names[p.Title] = true
			}
			refs := map[string]bool{}
			for _, q := range p.Targets {
				assert.False(t, refs[q.RefID], "%s %s: two queries %s", d.UID, p, q.RefID)
				refs[q.RefID] = true
				assert.NotEqual(t, q.Instant, q.Range, "%s %s", d.UID, p)
			}
		}
	}
}

func TestPanelsKeepToTheirPlaces(t *testing.T) {
	for _, d := range all(t) {
		taken := map[[2]int]panel{}
		for _, p := range d.Panels {
			g := p.GridPos
			assert.Positive(t, g.W*g.H, "%s %s", d.UID, p)
			assert.True(t, g.X >= 0 && g.Y >= 0 && g.X+g.W <= 24, "%s %s leaves the grid", d.UID, p)
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					other, ok := taken[[2]int{x, y}]
					require.False(t, ok, "%s: %s lies on %s", d.UID, p, other)
					taken[[2]int{x, y}] = p
				}
			}
		}
	}
}

// A description says what is seen to somebody who meets the signal for the first time.
func TestDescriptionsExplain(t *testing.T) {
	for _, d := range all(t) {
		for _, p := range d.content() {
			assert.True(t, strings.HasSuffix(p.Description, "."), "%s %s: no sentence", d.UID, p)
			assert.GreaterOrEqual(t, len(strings.Fields(p.Description)), 6, "%s %s: too short to explain", d.UID, p)
			assert.NotContains(t, strings.ToLower(p.Description), "cfs", "%s %s: jargon", d.UID, p)
			assert.NotContains(t, p.Description, "nr_", "%s %s: jargon", d.UID, p)
		}
	}
}

// Grafana drops an organize or an override that names no field without a word.
func TestTablesNameTheirFields(t *testing.T) {
	for _, d := range all(t) {
		for _, p := range d.content() {
			if p.Type != "table" && p.Type != "trend" {
				continue
			}
			shown := map[string]bool{}
			fields := map[string]bool{}
			for _, tr := range p.Transformations {
				for field, title := range tr.Options.RenameByName {
					shown[title], fields[field] = true, true
				}
			}
			for _, q := range p.Targets {
				field := "Value #" + q.RefID
				if len(p.Targets) == 1 {
					field = "Value"
				}
				assert.True(t, fields[field], "%s %s: %s is not named", d.UID, p, field)
				assert.True(t, q.Instant && q.Format == "table", "%s %s: %s", d.UID, p, q.RefID)
			}
			for _, o := range p.FieldConfig.Overrides {
				assert.Equal(t, "byName", o.Matcher.ID)
				assert.True(t, shown[o.Matcher.Options], "%s %s: no column %q", d.UID, p, o.Matcher.Options)
				for _, property := range o.Properties {
					if property.ID == "custom.fillBelowTo" {
						assert.True(t, shown[strings.Trim(string(property.Value), `"`)], "%s %s: nothing to fill down to is called %s", d.UID, p, property.Value)
					}
				}
			}
			if p.Type == "trend" {
				assert.True(t, shown[fmt.Sprint(p.Options["xField"])], "%s %s: no axis %q", d.UID, p, p.Options["xField"])
			}
		}
	}
}
