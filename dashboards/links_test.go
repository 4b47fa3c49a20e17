package dashboards_test

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// follow finds the dashboard and the variables that a link names.
func follow(t *testing.T, link string) (dashboard, url.Values) {
	t.Helper()
	// Grafana puts whole parameters for these.
	link = regexp.MustCompile(`\$\{(datasource:queryparam|__url_time_range)\}&?`).ReplaceAllString(link, "")
	u, err := url.Parse(link)
	require.NoError(t, err)
	uid, ok := strings.CutPrefix(u.Path, "/d/")
	require.True(t, ok, link)
	for _, d := range all(t) {
		if d.UID != uid {
			continue
		}
		for name := range u.Query() {
			if named, ok := strings.CutPrefix(name, "var-"); ok {
				assert.True(t, slices.ContainsFunc(d.Templating.List, func(v variable) bool { return v.Name == named }),
					"%s: %s has no variable %s", link, uid, named)
			}
		}
		return d, u.Query()
	}
	t.Fatalf("%s leads to no dashboard", link)
	return dashboard{}, nil
}

func TestLinksLeadSomewhere(t *testing.T) {
	field := regexp.MustCompile(`\$\{__data\.fields\.(\w+)\}`)
	opened := map[string][]string{}
	for _, d := range all(t) {
		require.Len(t, d.Links, 1)
		assert.Equal(t, "dashboards", d.Links[0].Type)
		assert.Equal(t, d.Tags, d.Links[0].Tags)
		for _, p := range d.content() {
			columns := map[string]bool{}
			for _, tr := range p.Transformations {
				for _, title := range tr.Options.RenameByName {
					columns[title] = true
				}
			}
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					if property.ID != "links" {
						continue
					}
					var links []link
					require.NoError(t, json.Unmarshal(property.Value, &links))
					for _, l := range links {
						to, _ := follow(t, l.URL)
						opened[d.UID] = append(opened[d.UID], to.UID)
						for _, f := range field.FindAllStringSubmatch(l.URL, -1) {
							assert.True(t, columns[f[1]], "%s %s: no column %s", d.UID, p, f[1])
						}
					}
				}
			}
		}
	}
	assert.Contains(t, opened["kernel-gossip-lying"], "kernel-gossip-container")
	assert.Contains(t, opened["kernel-gossip-lying"], "kernel-gossip-node")
	assert.Contains(t, opened["kernel-gossip-node"], "kernel-gossip-container")
}

// Each alert leads to a panel that shows what it speaks of.
func TestAlertsLeadToPanels(t *testing.T) {
	template := regexp.MustCompile(`{{.*?}}`)
	for _, r := range allRules(t) {
		if r.Alert == "" {
			continue
		}
		link := r.Annotations["dashboard_url"]
		require.NotEmpty(t, link, "%s has no dashboard_url", r.Alert)
		d, query := follow(t, template.ReplaceAllString(link, "x"))
		id, err := strconv.Atoi(query.Get("viewPanel"))
		require.NoError(t, err, "%s: %s", r.Alert, link)
		shown := slices.IndexFunc(d.content(), func(p panel) bool { return p.ID == id })
		require.NotEqual(t, -1, shown, "%s: %s has no panel %d", r.Alert, d.UID, id)

		// The panel asks for a metric of the alert's, by itself or under a rule's name.
		stem := regexp.MustCompile(`kernel_gossip_(exporter_|cpu_)?[a-z]+`)
		var asked []string
		for _, q := range d.content()[shown].Targets {
			asked = append(asked, stem.FindAllString(q.Expr, -1)...)
		}
		assert.True(t, slices.ContainsFunc(stem.FindAllString(r.Expr, -1), func(m string) bool { return slices.Contains(asked, m) }),
			"%s asks %s, panel %d of %s asks %v", r.Alert, r.Expr, id, d.UID, asked)
	}
}
