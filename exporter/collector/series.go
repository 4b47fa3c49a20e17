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

// seriesLabels keeps the labels of a family's series from one scrape to the next.
// Made anew they are most of what a scrape allocates.
type seriesLabels struct {
	mu     sync.Mutex
	now    uint64 // scrape
	sorted []int  // the labels' places by name
	known  map[labelValues]*keptLabels
}

type keptLabels struct {
	pairs []*dto.LabelPair // shared with metrics that are being sent: never changed
	used  uint64           // scrape
}

func (s *seriesLabels) pairs(names []string, values labelValues) ([]*dto.LabelPair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[values]; k != nil {
		k.used = s.now
		return k.pairs, nil
	}
	if s.known == nil {
		s.known = map[labelValues]*keptLabels{}
		for i := range names {
			s.sorted = append(s.sorted, i)
		}
		slices.SortFunc(s.sorted, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	}
	k := &keptLabels{used: s.now, pairs: make([]*dto.LabelPair, len(names))}
	own := values // on the heap, for the pairs; values is not
	for i, at := range s.sorted {
		if !utf8.ValidString(own[at]) {
			return nil, fmt.Errorf("label %s: %q is not UTF-8", names[at], own[at])
		}
		k.pairs[i] = &dto.LabelPair{Name: &names[at], Value: &own[at]}
	}
	s.known[values] = k
	return k.pairs, nil
}

// scraped ends a scrape: what none of the last two had is forgotten. Two, for scrapes
// may overlap.
func (s *seriesLabels) scraped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for values, k := range s.known {
		if k.used+1 < s.now {
			delete(s.known, values)
		}
	}
	s.now++
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
