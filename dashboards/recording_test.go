package dashboards_test

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// play fills a TSDB from the recording and evaluates the shipped rules over it.
func play(t *testing.T, r tape) (*teststorage.TestStorage, *promql.Engine) {
	t.Helper()
	storage := promqltest.LoadedStorage(t, r.text, func(o *tsdb.Options) {
		// Records are written at times from before the last sample that was loaded.
		o.MinBlockDuration = (30 * 24 * time.Hour).Milliseconds()
		o.MaxBlockDuration = o.MinBlockDuration
	})
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
	manager := promrules.NewManager(&promrules.ManagerOptions{
		ExternalURL:  &url.URL{Scheme: "http", Host: "prometheus"},
		QueryFunc:    promrules.EngineQueryFunc(engine, storage),
		AppendableV2: storage,
		Queryable:    storage,
		Context:      t.Context(),
		Parser:       parser.NewParser(parser.Options{}),
		NotifyFunc:   func(context.Context, string, ...*promrules.Alert) {},
	})
	groups, errs := manager.LoadGroups(r.interval, labels.EmptyLabels(), "", nil, false, ruleFiles(t)...)
	require.Empty(t, errs)
	for _, group := range groups {
		for _, rule := range group.AlertingRules() {
			rule.SetRestored(true) // nothing is; it writes ALERTS only then
		}
	}
	for at := time.Unix(0, 0); !at.After(r.end()); at = at.Add(r.interval) {
		for _, group := range groups {
			group.Eval(t.Context(), at)
		}
	}
	return storage, engine
}

// points is how many numbers a query returns: at the end for an instant query, else
// over the whole recording.
func points(t *testing.T, storage *teststorage.TestStorage, engine *promql.Engine, r tape, expr string, instant bool) int {
	t.Helper()
	query, err := engine.NewRangeQuery(t.Context(), storage, nil, expr, time.Unix(0, 0), r.end(), r.interval)
	if instant {
		query, err = engine.NewInstantQuery(t.Context(), storage, nil, expr, r.end())
	}
	require.NoError(t, err, expr)
	defer query.Close()
	result := query.Exec(t.Context())
	require.NoError(t, result.Err, expr)
	for _, w := range result.Warnings {
		t.Errorf("%s: %s", expr, w)
	}
	n := 0
	if instant {
		vector, err := result.Vector()
		require.NoError(t, err, expr)
		for _, sample := range vector {
			if sample.H != nil || !math.IsNaN(sample.F) {
				n++
			}
		}
		return n
	}
	matrix, err := result.Matrix()
	require.NoError(t, err, expr)
	for _, series := range matrix {
		n += len(series.Histograms)
		for _, f := range series.Floats {
			if !math.IsNaN(f.F) {
				n++
			}
		}
	}
	return n
}

func TestEveryPanelReturnsData(t *testing.T) {
	r := recorded(t)
	storage, engine := play(t, r)
	instances := r.instances()
	for _, d := range all(t) {
		for _, p := range d.content() {
			answered := 0
			for _, q := range p.Targets {
				id := fmt.Sprintf("%s %d %s", d.UID, p.ID, q.RefID)
				n := points(t, storage, engine, r, fill(q.Expr, everyValue(d), r.interval), q.Instant)
				answered += n
				assert.Positive(t, n, "%s, %q, returns no data:\n%s", id, p.Title, q.Expr)
			}
			// The same of one node.
			ofOne := 0
			for _, instance := range instances {
				one := everyValue(d)
				one["instance"] = instance
				for _, q := range p.Targets {
					ofOne += points(t, storage, engine, r, fill(q.Expr, one, r.interval), q.Instant)
				}
			}
			assert.Equal(t, answered > 0, ofOne > 0, "%s %s: all instances answer otherwise than each", d.UID, p)
		}
		for _, a := range d.Annotations.List {
			if d.UID == "kernel-gossip-self" {
				continue // nothing was wrong with kernel-gossip
			}
			assert.Positive(t, points(t, storage, engine, r, fill(a.Expr, everyValue(d), r.interval), false), "%s: %s", d.UID, a.Name)
		}
	}
}

// Grafana makes a column of each label, and shows those that nobody named as well.
func TestTablesShowNamedColumnsAlone(t *testing.T) {
	r := recorded(t)
	storage, engine := play(t, r)
	for _, d := range all(t) {
		for _, p := range d.content() {
			if p.Type != "table" && p.Type != "trend" {
				continue
			}
			named := map[string]bool{model.MetricNameLabel: true} // which Grafana leaves out
			for _, tr := range p.Transformations {
				for field := range tr.Options.RenameByName {
					named[field] = true
				}
			}
			for _, q := range p.Targets {
				query, err := engine.NewInstantQuery(t.Context(), storage, nil, fill(q.Expr, everyValue(d), r.interval), r.end())
				require.NoError(t, err)
				vector, err := query.Exec(t.Context()).Vector()
				require.NoError(t, err)
				for _, sample := range vector {
					sample.Metric.Range(func(l labels.Label) {
						assert.True(t, named[l.Name], "%s %s %s: a column %s", d.UID, p, q.RefID, l.Name)
					})
				}
				query.Close()
			}
		}
	}
}
