package collector

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

// node is a sample of many containers, each with all that the defaults measure.
func node(containers int) *sampler.Snapshot {
	snap := fixture()
	snap.SyscallNames = nil
	for i := range 17 {
		snap.SyscallNames = append(snap.SyscallNames, fmt.Sprintf("call_%d", i))
	}
	snap.Containers = nil
	for i := range containers {
		c := full(len(snap.SyscallNames))
		c.WhatIf = nil // off by default
		c.Pod = fmt.Sprintf("cart-7d9f-%04d", i)
		snap.Containers = append(snap.Containers, c)
	}
	return snap
}

const (
	// What Prometheus asks for where it scrapes native histograms, and where it does not.
	protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	text     = "text/plain;version=0.0.4"
)

// scraper is what a scrape goes through but for the network, and how many series it has.
func scraper(t testing.TB, snap *sampler.Snapshot, accept string) (scrape func(), series int) {
	t.Helper()
	gatherer := set(snap, Options{})
	families, err := gatherer.Gather()
	require.NoError(t, err)
	for _, f := range families {
		series += len(f.GetMetric())
	}
	handler := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{DisableCompression: true})
	request := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
	request.Header.Set("Accept", accept)
	return func() { handler.ServeHTTP(&discard{header: http.Header{}}, request) }, series
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (d *discard) WriteHeader(int)             {}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{20, 250, 1000} {
		for format, accept := range map[string]string{"protobuf": protobuf, "text": text} {
			b.Run(fmt.Sprintf("containers=%d/%s", n, format), func(b *testing.B) {
				scrape, series := scraper(b, node(n), accept)
				b.ReportAllocs()
				for b.Loop() {
					scrape()
				}
				b.ReportMetric(float64(series), "series")
			})
		}
	}
}

// A scrape makes series many at a time: what it allocates for each is about one piece at most,
// and ever less with their number.
func TestScrapeAllocations(t *testing.T) {
	for n, most := range map[int]float64{20: 2, 250: 1.2} {
		scrape, series := scraper(t, node(n), text)
		scrape()
		each := testing.AllocsPerRun(3, scrape) / float64(series)
		t.Logf("%d containers, %d series: %.1f allocations each", n, series, each)
		assert.Less(t, each, most, "%d containers", n)
	}
}
