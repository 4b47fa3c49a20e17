package collector

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// maxLabels of a series: a container's three names, and those of container_info.
const maxLabels = 7

// labelValues of a series, in the order of its family's labels; the rest is empty.
type labelValues [maxLabels]string

// labelPairs keeps labels from one scrape to the next, for all series that have them:
// made anew for each series they are most of what a scrape allocates, and kept for each
// most of what the exporter holds.
type labelPairs struct {
	mu    sync.Mutex
	now   uint64 // scrape
	known map[label]*keptPair
}

type label struct{ name, value string }

type keptPair struct {
	pair *dto.LabelPair // shared with metrics that are being sent: never changed
	used uint64         // scrape
}

func newLabelPairs() *labelPairs { return &labelPairs{known: map[label]*keptPair{}} }

// of returns the labels of a series, sorted by name as places tells.
func (l *labelPairs) of(names []string, places []int, values *labelValues) ([]*dto.LabelPair, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pairs := make([]*dto.LabelPair, len(places))
	for i, at := range places {
		key := label{names[at], values[at]}
		k := l.known[key]
		if k == nil {
			if !utf8.ValidString(key.value) {
				return nil, fmt.Errorf("label %s: %q is not UTF-8", key.name, key.value)
			}
			own := key // on the heap, for the pair; key is not
			k = &keptPair{pair: &dto.LabelPair{Name: &own.name, Value: &own.value}}
			l.known[key] = k
		}
		k.used = l.now
		pairs[i] = k.pair
	}
	return pairs, nil
}

// scraped ends a scrape: what none of the last two had is forgotten. Two, for scrapes
// may overlap.
func (l *labelPairs) scraped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, k := range l.known {
		if k.used+1 < l.now {
			delete(l.known, key)
		}
	}
	l.now++
}

// sorted are the places of names in the order of names.
func sorted(names []string) []int {
	places := make([]int, len(names))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	return places
}

// single is a metric of one value: prometheus.NewConstMetric with labels that are kept.
type single struct {
	desc  *prometheus.Desc
	kind  kind
	v     float64
	pairs []*dto.LabelPair
}

var _ prometheus.Metric = (*single)(nil)

func (m *single) Desc() *prometheus.Desc { return m.desc }

func (m *single) Write(out *dto.Metric) error {
	out.Label = m.pairs
	if m.kind == gauge {
		out.Gauge = &dto.Gauge{Value: &m.v}
	} else {
		out.Counter = &dto.Counter{Value: &m.v}
	}
	return nil
}
