package collector

import (
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

const prefix = "kernel_gossip_"

type kind int

const (
	counter kind = iota
	gauge
	histogram
	fact // a gauge that is always 1: its labels tell, and stay true
)

func (k kind) String() string {
	return [...]string{"counter", "gauge", "histogram", "gauge"}[k]
}

func (k kind) message() *dto.MetricType {
	return [...]dto.MetricType{dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE}[k].Enum()
}

// containerLabels are a container's names, the first labels of each of its series.
func containerLabels() [3]string { return [...]string{"namespace", "pod", "container"} }

// Family is a metric with all its series.
type Family struct {
	name, help string
	kind       kind
	labels     []string
	places     []int // of labels, sorted by name
	number     int   // among the families of a Set
}

func newFamily(k kind, name, help string, labels ...string) *Family {
	return &Family{name: prefix + name, help: help, kind: k, labels: labels, places: sorted(labels)}
}

// perContainer is a family whose series carry a container's names.
func perContainer(k kind, name, help string, labels ...string) *Family {
	names := containerLabels()
	return newFamily(k, name, help, append(names[:], labels...)...)
}

// message is what the client library encodes, without series.
func (f *Family) message() *dto.MetricFamily {
	return &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: f.kind.message()}
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
