package check

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func facts(t testing.TB) *Facts {
	t.Helper()
	f, err := Pixie()
	require.NoError(t, err)
	require.NotEmpty(t, f.Version)
	return f
}

func lines(faults []*Error) []string {
	var all []string
	for _, f := range faults {
		all = append(all, f.Error())
	}
	return all
}

// The talk's script fails, line by line, with what to use instead.
func TestTheTalksScript(t *testing.T) {
	source, err := os.ReadFile("testdata/talk.pxl")
	require.NoError(t, err)
	_, faults := Script(string(source), facts(t), nil)
	all := strings.Join(lines(faults), "\n")
	assert.Contains(t, all, "line 6: there is no column throttled_time here")
	assert.Contains(t, all, "use kernel_gossip_cpu_throttled_seconds_total of kernel-gossip-exporter")
	assert.Contains(t, all, "line 6: there is no column cpu_limit here")
	assert.Contains(t, all, "use kernel_gossip_cpu_limit_cores of kernel-gossip-exporter")
	assert.Contains(t, all, "line 8: Pixie has no px.send_webhook; use px.export(df, px.otel.Data(…))")
	assert.Contains(t, all, "line 9: Pixie has no px.schedule_script; use a ConfigMap labelled purpose=cron-script")
	assert.Len(t, faults, 4, all)
}

func TestFaults(t *testing.T) {
	const head = "import px\ndf = px.DataFrame('process_stats', start_time='-1m')\n"
	const export = "px.export(df, px.otel.Data(resource={'service.name': df.pod}, data=["
	for want, source := range map[string]string{
		"line 1: px is not imported":                                                                       "df = px.DataFrame('process_stats')\n",
		"line 1: there is no module os; PxL has px and pxtrace":                                            "import os\n",
		`line 2: Pixie has no table "cgroup_stats"; it has`:                                                "import px\ndf = px.DataFrame(table='cgroup_stats')\n",
		"use kernel-gossip-exporter: Pixie has no table of cgroups":                                        "import px\ndf = px.DataFrame(table='cgroup_stats')\n",
		"line 2: px.DataFrame has no argument tabel":                                                       "import px\ndf = px.DataFrame(tabel='process_stats')\n",
		"line 2: px.DataFrame needs the argument table":                                                    "import px\ndf = px.DataFrame(tabel='process_stats')\n",
		"line 3: px.select takes 3 arguments, got 2":                                                       head + "df.x = px.select(df.rss_bytes > 1, 1)\n",
		"line 3: there is no column cpu here":                                                              head + "df.x = df.cpu + 1\n",
		"line 3: Pixie has no px.sum_all":                                                                  head + "df.x = px.sum_all(df.rss_bytes)\n",
		"line 3: px.mean aggregates: use it as agg(name=('column', px.mean))":                              head + "df.x = px.mean(df.rss_bytes)\n",
		"line 3: x: px.length does not aggregate":                                                          head + "df = df.groupby('upid').agg(x=('rss_bytes', px.length))\n",
		"line 3: x: px.sum takes no time":                                                                  head + "df = df.groupby('upid').agg(x=('time_', px.sum))\n",
		"line 4: there is no column rss_bytes here, only upid, x":                                          head + "df = df.groupby('upid').agg(x=('vsize_bytes', px.max))\ndf.y = df.rss_bytes\n",
		`line 4: ctx["pod"] needs a column upid or pod_id, and the frame has none any more`:                head + "df = df[['time_', 'rss_bytes']]\ndf.pod = df.ctx['pod']\n",
		`line 3: there is no ctx["cgroup"]`:                                                                head + "df.x = df.ctx['cgroup']\n",
		`line 3: ctx["container"] needs a column upid`:                                                     "import px\ndf = px.DataFrame('network_stats')\ndf.c = df.ctx['container']\n",
		"line 3: time == string: these types do not go together":                                           head + "df = df[df.time_ == '10s']\n",
		"line 3: a filter is a condition, this is int":                                                     head + "df = df[df.rss_bytes + 1]\n",
		"line 4: a grouped DataFrame has no columns before agg()":                                          head + "df = df.groupby('upid')\ndf.x = df.rss_bytes\n",
		"line 3: px.export takes a DataFrame and px.otel.Data(…)":                                          head + "px.export(df, 'http://operator')\n",
		"line 4: value: upid is upid; a gauge is int or float":                                             head + "df.pod = df.ctx['pod']\n" + export + "px.otel.metric.Gauge(name='a', value=df.upid)]))\n",
		"line 4: value: want a column, df.name: assign the expression to one first":                        head + "df.pod = df.ctx['pod']\n" + export + "px.otel.metric.Gauge(name='a', value=df.rss_bytes / 2)]))\n",
		"line 4: attributes: rss_bytes is int; attributes are strings":                                     head + "df.pod = df.ctx['pod']\n" + export + "px.otel.metric.Gauge(name='a', value=df.rss_bytes, attributes={'b': df.rss_bytes})]))\n",
		`line 4: metric name "1 a": want letters`:                                                          head + "df.pod = df.ctx['pod']\n" + export + "px.otel.metric.Gauge(name='1 a', value=df.rss_bytes)]))\n",
		"line 5: there is no column time_ here":                                                            head + "df.pod = df.ctx['pod']\ndf = df.groupby('pod').agg(x=('rss_bytes', px.max))\n" + export + "px.otel.metric.Gauge(name='a', value=df.x)]))\n",
		"line 3: resource: 'service.name' is required":                                                     head + "px.export(df, px.otel.Data(resource={'k8s.pod.name': df.ctx['pod']}, data=[px.otel.metric.Gauge(name='a', value=df.rss_bytes)]))\n",
		"line 4: start_time: rss_bytes is int, want a time":                                                head + "df.pod = df.ctx['pod']\n" + export + "px.otel.trace.Span(name='a', start_time=df.rss_bytes, end_time=df.time_)]))\n",
		"line 3: PxL has no \"for\"":                                                                       head + "for x in df:\n    px.display(x)\n",
		"line 5: want \",\", got \"]\"":                                                                    head + "px.display((df\n)\n]",
		"line 2: a bracket is not closed":                                                                  "import px\npx.display(px.now()",
		"line 1: the string is not closed":                                                                 "x = 'a\n",
		"line 3: the indentation fits no line above":                                                       "def f():\n    x = 1\n  y = 2\n",
		"line 1: f calls itself":                                                                           "def f():\n    return f()\nf()\n",
		"line 2: argument name is given twice":                                                             "import px\npx.display(px.DataFrame('process_stats'), name='a', name='b')\n",
		"line 2: the bpftrace program: it has no printf":                                                   "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { }', pxtrace.kprobe(), '1m')\n",
		"line 2: the bpftrace program: it prints no time_":                                                 "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { printf(\"pid:%d\", pid); }', pxtrace.kprobe(), '1m')\n",
		`line 2: the bpftrace program: printf "time_:%llu pid:%d" has 2 fields and 1 arguments`:            "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { printf(\"time_:%llu pid:%d\", nsecs); }', pxtrace.kprobe(), '1m')\n",
		`line 2: the bpftrace program: printf field "pid=%d": want name:%format`:                           "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { printf(\"time_:%llu pid=%d\", nsecs, pid); }', pxtrace.kprobe(), '1m')\n",
		"line 2: pxtrace.UpsertTracepoint needs the argument ttl":                                          "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { printf(\"time_:%llu\", nsecs); }', pxtrace.kprobe())\n",
		`line 2: the bpftrace program: it prints "time_:%llu" and "time_:%llu a:%d"; a table has one form`: "import pxtrace\npxtrace.UpsertTracepoint('a', 'b', 'kprobe:x { printf(\"time_:%llu\", nsecs); printf(\"time_:%llu a:%d\", nsecs, 1); }', pxtrace.kprobe(), '1m')\n",
	} {
		_, faults := Script(source, facts(t), nil)
		assert.Contains(t, strings.Join(lines(faults), "\n"), want, source)
	}
}

// What Pixie's own scripts do passes.
func TestWhatWorksPasses(t *testing.T) {
	for name, source := range map[string]string{
		"functions and merge": `'''Doc.'''
import px

ns_per_s = 1000 * 1000 * 1000
window_ns = px.DurationNanos(10 * ns_per_s)

def by_pod(start_time: str, pod: px.Pod):
    df = px.DataFrame(table='process_stats', start_time=start_time)
    df = df[df.ctx['pod'] == pod]
    df.timestamp = px.bin(df.time_, window_ns)
    df['container'] = df.ctx['container_name']
    df = df.groupby(['upid', 'timestamp', 'container']).agg(
        rss=('rss_bytes', px.mean),
        end=('cpu_utime_ns', px.max), begin=('cpu_utime_ns', px.min),
    )
    df.cpu = px.Percent((df.end - df.begin) / window_ns)
    df['time_'] = df['timestamp']
    return df.drop(['begin', 'end', 'timestamp'])

left = by_pod('-5m', 'shop/web-0')
right = px.DataFrame(table='proc_exit_events', start_time='-5m')
both = left.merge(right, how='left', left_on='upid', right_on='upid', suffixes=['', '_x'])
both = both[both.exit_code != 0 and not both.signal == 9]
both.late = both.time_x > both.time_
px.display(both['time_', 'container', 'rss', 'time__x'].head(10), 'exits')
`,
		"quantiles": "import px\ndf = px.DataFrame('http_events', select=['latency', 'req_path', 'upid', 'time_'])\ndf = df.groupby('req_path').agg(q=('latency', px.quantiles))\ndf.p99 = px.DurationNanos(px.floor(px.pluck_float64(df.q, 'p99')))\npx.display(df)\n",
		"spans":     "import px\ndf = px.DataFrame('http_events', start_time=px.plugin.start_time)\ndf.begin = df.time_ - df.latency\ndf.svc = df.ctx['service']\npx.export(df, px.otel.Data(endpoint=px.otel.Endpoint(url='a:1', insecure=True), resource={'service.name': df.svc}, data=[px.otel.trace.Span(name=df.req_path, start_time=df.begin, end_time=df.time_, kind=px.otel.trace.SPAN_KIND_SERVER, attributes={'a': 'b'})]))\n",
	} {
		_, faults := Script(source, facts(t), nil)
		if name == "functions and merge" {
			// One fault is meant: the joined time is time__x.
			require.Len(t, faults, 1, lines(faults))
			assert.Contains(t, faults[0].Error(), "line 24: there is no column time_x here")
			continue
		}
		assert.Empty(t, lines(faults), name)
	}
}

func TestATracepointsTable(t *testing.T) {
	got, faults := Script("import pxtrace\np = pxtrace.TraceProgram(program='kprobe:x { printf(\"time_:%llu pid:%d comm:%s\", nsecs, f(a, b), comm); }', min_kernel='5.19')\npxtrace.UpsertTracepoint('a', 'mine', [p], pxtrace.kprobe(), '1m')\n", facts(t), nil)
	require.Empty(t, lines(faults))
	assert.Equal(t, map[string]Columns{"mine": {"time_": "time", "pid": "int", "comm": "string"}}, got.Tables)
	_, faults = Script("import px\npx.display(px.DataFrame('mine'))\n", facts(t), got.Tables)
	assert.Empty(t, lines(faults))
}

// FuzzScript: no script makes the checker panic or hang.
func FuzzScript(f *testing.F) {
	talk, err := os.ReadFile("testdata/talk.pxl")
	require.NoError(f, err)
	f.Add(string(talk))
	f.Add("import px\ndef f(a: str = 1) -> px.Pod:\n\tdf = px.DataFrame(a)[['b'], 'c'].merge(df, how=1)\n\treturn -df, not {1: 2}['x']\nf(1)\n")
	f.Add("import pxtrace\npxtrace.UpsertTracepoint('', '', \"\"\"printf(\\\"time_:%d\\\", (1)); \"\"\", 1, 2)\n")
	known := facts(f)
	f.Fuzz(func(t *testing.T, source string) {
		_, faults := Script(source, known, nil)
		for _, fault := range faults {
			require.LessOrEqual(t, fault.Line, strings.Count(source, "\n")+1)
		}
	})
}
