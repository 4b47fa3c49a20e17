package intake

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func ptr[T any](v T) *T { return &v }

func TestTheTalksCurl(t *testing.T) {
	want := signal.Signal{
		Type: signal.CPUThrottle, Source: signal.SourcePixie,
		Namespace: "kernel-gossip", Pod: "live-demo", Container: "app",
		Observed: time.Date(2025, 8, 25, 11, 0, 0, 0, time.UTC),
		CPU:      &signal.CPU{ThrottlePercent: 78.5, ActualCores: ptr(1.5), ReportedCores: ptr(0.6), PeriodSeconds: 60},
	}
	for name, body := range map[string]string{
		"tagged":   live,
		"wrapped":  `{"cpu_throttle":` + strings.Replace(live, `"type":"cpu_throttle",`, "", 1) + `}`,
		"an array": "[" + live + "]",
		"unknown":  `{"colour":{"r":[1,2,{"x":null}]},` + live[1:],
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			code, answer := b.post(t, PathPixie, body)
			assert.Equal(t, http.StatusOK, code)
			assert.Equal(t, reply{Status: "accepted", Message: "cpu_throttle of kernel-gossip/live-demo is stored"}, answer)
			require.Len(t, b.got, 1)
			assert.Equal(t, want, b.got[0])
		})
	}
}

func TestSource(t *testing.T) {
	b := newBed(Options{})
	b.post(t, PathEBPF, live)
	b.post(t, PathPixie, `{"ebpf_detection":true,`+live[1:])
	require.Len(t, b.got, 2)
	assert.Equal(t, signal.SourceEBPF, b.got[0].Source)
	assert.False(t, b.got[0].CPU.KernelInstrumented)
	assert.Equal(t, signal.SourceEBPF, b.got[1].Source)
	assert.True(t, b.got[1].CPU.KernelInstrumented)
}

func TestArrayKeepsItsOrder(t *testing.T) {
	b := newBed(Options{})
	over := strings.Replace(live, `"type"`, `"resolved":true,"type"`, 1)
	code, answer := b.post(t, PathPixie, "["+live+","+over+"]")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "2 events are stored", answer.Message)
	require.Len(t, b.got, 2)
	assert.False(t, b.got[0].Resolved)
	assert.True(t, b.got[1].Resolved)
}

func TestResolvedNeedsNoFigures(t *testing.T) {
	b := newBed(Options{})
	code, answer := b.post(t, PathEBPF, `{"type":"cpu_throttle","pod_name":"a","namespace":"b","resolved":true,"timestamp":"2026-03-01T11:00:00Z"}`)
	assert.Equal(t, http.StatusOK, code, answer.Message)
	require.Len(t, b.got, 1)
	assert.Nil(t, b.got[0].CPU)
}

func TestCreation(t *testing.T) {
	event := func(extra string) string {
		return `{"type":"pod_creation","pod_name":"web","namespace":"shop","total_syscalls":847,"namespace_ops":15,"cgroup_writes":23.0,"duration_ns":1.5e9,"timestamp":"2026-03-01T11:00:00Z"` + extra + `}`
	}
	b := newBed(Options{})
	code, answer := b.post(t, PathPixie, event(`,"iptables_rules":12,"network":{"interfaces":["eth0"]},
		"timeline":[{"timestamp_ms":0,"actor":"scheduler","action":"bind"},{"timestamp_ms":12.5,"actor":"kubelet","action":"create sandbox","details":"runc\tcreate"}],
		"syscalls":["clone","unshare","mount","clone"]`))
	require.Equal(t, http.StatusOK, code, answer.Message)
	require.Len(t, b.got, 1)
	assert.Equal(t, &signal.Creation{
		TotalSyscalls: 847, NamespaceOps: 15, CgroupWrites: 23, Duration: 1500 * time.Millisecond,
		Network: &signal.BirthNetwork{Interfaces: []string{"eth0"}, FirewallRules: ptr(uint64(12))},
		Timeline: []signal.Step{
			{Actor: "scheduler", Action: "bind"},
			{Offset: 12500 * time.Microsecond, Actor: "kubelet", Action: "create sandbox", Details: "runc\tcreate"},
		},
		Syscalls: []signal.SyscallCount{{Name: "clone", Count: 2}, {Name: "unshare", Count: 1}, {Name: "mount", Count: 1}},
	}, b.got[0].Creation)

	code, answer = b.post(t, PathPixie, event(`,
		"timeline":[{"timestamp_ms":1772362800250,"actor":"cni","action":"add"},{"timestamp_ms":1772362800000,"actor":"kubelet","action":"sync"}],
		"syscalls":[{"name":"clone3","timestamp":"2026-03-01T10:59:59.5Z","count":3},{"name":"mount"},"setns"]`))
	require.Equal(t, http.StatusOK, code, answer.Message)
	c := b.got[1].Creation
	assert.Equal(t, []time.Duration{250 * time.Millisecond, 0}, []time.Duration{c.Timeline[0].Offset, c.Timeline[1].Offset}, "Unix times are taken from the first step on")
	assert.Equal(t, []signal.SyscallCount{
		{Name: "clone3", First: time.Date(2026, 3, 1, 10, 59, 59, 5e8, time.UTC), Count: 3}, {Name: "mount", Count: 1}, {Name: "setns", Count: 1},
	}, c.Syscalls)

	for field, extra := range map[string]string{
		"syscalls":                 `,"syscalls":"clone"`,
		"syscalls[1]":              `,"syscalls":["clone",7]`,
		"syscalls[0].count":        `,"syscalls":[{"name":"clone","count":-1}]`,
		"syscalls[0].name":         `,"syscalls":["rm -rf /"]`,
		"timeline[0]":              `,"timeline":["bind"]`,
		"timeline[1].timestamp_ms": `,"timeline":[{"timestamp_ms":1,"actor":"a","action":"b"},{"timestamp_ms":-1e10,"actor":"a","action":"b"}]`,
		"timeline[0].timestamp_ms": `,"timeline":[{"actor":"a","action":"b"}]`,
		"timeline[0].action":       `,"timeline":[{"timestamp_ms":1,"actor":"a"}]`,
		"timeline[0].details":      `,"timeline":[{"timestamp_ms":1,"actor":"a","action":"b","details":"\u001b[2J"}]`,
		"timeline[0].duration_ms":  `,"timeline":[{"timestamp_ms":1,"duration_ms":-1,"actor":"a","action":"b"}]`,
		"timeline[0].precision_ms": `,"timeline":[{"timestamp_ms":1,"precision_ms":"1s","actor":"a","action":"b"}]`,
		"timeline[0].container":    `,"timeline":[{"timestamp_ms":1,"container":"../a","actor":"a","action":"b"}]`,

		"setup_syscalls":               `,"setup_syscalls":848`,
		"shared_by":                    `,"shared_by":0`,
		"complete":                     `,"complete":"yes"`,
		"incomplete_reasons":           `,"complete":true,"incomplete_reasons":["events were lost"]`,
		"incomplete_reasons[0]":        `,"incomplete_reasons":[7]`,
		"failure":                      `,"failure":"exec: no such file"`,
		"mounts":                       `,"mounts":1.5`,
		"namespaces":                   `,"namespaces":{"net":1}`,
		"namespaces[0].created":        `,"namespaces":[{"kind":"net","entered":1}]`,
		"namespaces[0].kind":           `,"namespaces":[{"kind":"network","created":1,"entered":1}]`,
		"namespaces[1].kind":           `,"namespaces":[{"kind":"net","created":1,"entered":1},{"kind":"net","created":1,"entered":1}]`,
		"iptables_rules":               `,"iptables_rules":-1`,
		"network":                      `,"network":"10.0.0.2"`,
		"network.interfaces":           `,"network":{"interfaces":"eth0"}`,
		"network.routes[1]":            `,"network":{"routes":["default via 10.0.0.1",null]}`,
		"network.addresses[0]":         `,"network":{"addresses":["\u0007"]}`,
		"network.firewall_rules":       `,"network":{"firewall_rules":"12"}`,
		"containers[0].name":           `,"containers":[{"container_id":"0123"}]`,
		"containers[1].name":           `,"containers":[{"name":"app"},{"name":"app"}]`,
		"containers[0].entrypoint_ms":  `,"containers":[{"name":"app","entrypoint_ms":1e300}]`,
		"containers[0].entrypoint":     `,"containers":[{"name":"app","entrypoint":"\u001b[2J"}]`,
		"containers[0].setup_syscalls": `,"containers":[{"name":"app","syscalls":10,"setup_syscalls":11}]`,
		"roles[0].role":                `,"roles":[{"syscalls":7}]`,
		"roles[0].syscalls":            `,"roles":[{"role":"runc init"}]`,
	} {
		code, answer := b.post(t, PathPixie, event(extra))
		assert.Equal(t, http.StatusBadRequest, code, field)
		assert.Equal(t, field, answer.Field, answer.Message)
	}
	for _, field := range []string{"total_syscalls", "namespace_ops", "cgroup_writes", "duration_ns"} {
		_, answer := b.post(t, PathPixie, strings.Replace(event(""), `"`+field+`"`, `"x"`, 1))
		assert.Equal(t, field, answer.Field)
	}
	assert.Len(t, b.got, 2)
}

func TestOtherEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		event string
		want  map[string]float64
		field string
	}{
		"memory":             {`"type":"memory_pressure","oom_kills":2,"some_pressure_percent":43.5,"level":"high","Bad Name":1`, map[string]float64{"oom_kills": 2, "some_pressure_percent": 43.5}, ""},
		"memory, wrong type": {`"type":"memory_pressure","oom_kills":"2"`, nil, "oom_kills"},
		"network, by reason": {`"type":"network_issue","segments_sent":100,"tcp_retransmits":7,"drops":3,"drop_reasons":{"qdisc_drop":3}`,
			map[string]float64{"segments_sent": 100, "tcp_retransmits": 7, "drops": 3, "drops_qdisc_drop": 3}, ""},
		"network, bad reason":        {`"type":"network_issue","drops":3,"drop_reasons":{"Qdisc!":3}`, nil, "drop_reasons"},
		"network, reasons no object": {`"type":"network_issue","drops":3,"drop_reasons":[3]`, nil, "drop_reasons"},
		"network, reason no count":   {`"type":"network_issue","drops":3,"drop_reasons":{"qdisc_drop":-1}`, nil, "drop_reasons.qdisc_drop"},
		"memory, nothing":            {`"type":"memory_pressure"`, nil, ""},
		"network":                    {`"type":"network_issue","tcp_retransmits":120,"rtt_ms":3.25`, map[string]float64{"tcp_retransmits": 120, "rtt_ms": 3.25}, ""},
		"security":                   {`"type":"security_event","event":"setns","count":3`, map[string]float64{"setns": 3}, ""},
		"security, once":             {`"type":"security_event","event":"ptrace"`, map[string]float64{"ptrace": 1}, ""},
		"security, events":           {`"type":"security_event","event":"mount","count":9,"period_seconds":60,"events":{"mount":2,"bpf":5}`, map[string]float64{"mount": 2, "bpf": 5, "period_seconds": 60}, ""},
		"security, a bad event":      {`"type":"security_event","event":"mount","events":{"a b":2}`, nil, "events"},
		"security, no number":        {`"type":"security_event","event":"mount","events":{"mount":"2"}`, nil, "events.mount"},
		"security, events no object": {`"type":"security_event","event":"mount","events":7`, nil, "events"},
		"security, a terminal":       {`"type":"security_event","event":"mount","comm":"\u001b[31m"`, nil, "comm"},
		"security, two lines":        {`"type":"security_event","event":"mount","detail":"a\nb"`, nil, "detail"},
		"security, long binary":      {`"type":"security_event","event":"mount","binary":"` + strings.Repeat("x", 513) + `"`, nil, "binary"},
		"security, a long line":      {`"type":"security_event","event":"mount","ancestry":["a","b","c","d","e","f","g","h","i"]`, nil, "ancestry"},
		"security, no names":         {`"type":"security_event","event":"mount","ancestry":["a",7]`, nil, "ancestry[1]"},
		"security, no pid":           {`"type":"security_event","event":"mount","pid":4294967296`, nil, "pid"},
		"security, no event":         {`"type":"security_event","count":3`, nil, "event"},
		"security, bad event":        {`"type":"security_event","event":"a b"`, nil, "event"},
		"starvation":                 {`"type":"cpu_starvation","runqueue_wait_percent":63`, map[string]float64{"runqueue_wait_percent": 63}, ""},
		"starvation, nothing":        {`"type":"cpu_starvation"`, nil, "runqueue_wait_percent"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(Options{})
			code, answer := b.post(t, PathPixie, `{"pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z",`+c.event+`}`)
			if c.want == nil {
				assert.Equal(t, http.StatusBadRequest, code)
				assert.Equal(t, c.field, answer.Field)
				assert.Empty(t, b.got)
				return
			}
			require.Equal(t, http.StatusOK, code, answer.Message)
			assert.Equal(t, c.want, b.got[0].Values)
		})
	}
}

// What package wire can say, the door must understand: a field that is added
// there and forgotten here fails this test.
func TestWireIsUnderstood(t *testing.T) {
	words := map[string]string{"Outcome": "predicted", "Confidence": "high", "QOSClass": "Burstable"}
	full := func(v reflect.Value) {}
	full = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			full(v.Elem())
		case reflect.Map:
			element := reflect.New(v.Type().Elem()).Elem()
			full(element)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("x"), element)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			full(v.Index(0))
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				v.Set(reflect.ValueOf(now))
				return
			}
			for i := range v.NumField() {
				if word, bound := words[v.Type().Field(i).Name]; bound {
					v.Field(i).SetString(word)
					continue
				}
				full(v.Field(i))
			}
		case reflect.String:
			v.SetString("x")
		case reflect.Float64:
			v.SetFloat(1)
		case reflect.Uint64:
			v.SetUint(1)
		case reflect.Bool:
			v.SetBool(true)
		default:
			t.Fatalf("no value for a %s", v.Kind())
		}
	}
	for name, event := range map[string]any{
		wire.TypeCPUThrottle: &wire.CPUThrottle{}, wire.TypePodCreation: &wire.PodCreation{}, wire.TypeMemoryPressure: &wire.MemoryPressure{},
		wire.TypeNetworkIssue: &wire.NetworkIssue{}, wire.TypeSecurityEvent: &wire.SecurityEvent{}, wire.TypeCPUStarvation: &wire.CPUStarvation{},
	} {
		full(reflect.ValueOf(event).Elem())
		reflect.ValueOf(event).Elem().FieldByName("Type").SetString(name)
		if creation, ok := event.(*wire.PodCreation); ok {
			creation.Complete, creation.Namespaces[0].Kind, creation.IptablesRules = ptr(false), "net", ptr(uint64(2))
		}
		if security, ok := event.(*wire.SecurityEvent); ok {
			security.Events = map[string]uint64{"mount": 2} // of another than Event, which Count tells of
		}
		body, err := json.Marshal(event)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(body, &fields))

		whole, err := decodeEvents(body, signal.SourcePixie, now)
		require.NoError(t, err, string(body))
		less := func(place string) {
			// Without the field, the signal is another, or none.
			body, err := json.Marshal(fields)
			require.NoError(t, err)
			without, err := decodeEvents(body, signal.SourcePixie, now)
			assert.False(t, err == nil && reflect.DeepEqual(whole, without), "%s: %s is not read", name, place)
		}
		omit(fields, "", less)
	}
}

// omit calls less without each of the fields in turn, of objects within too. Left
// out are those that tell by their absence what the event above tells with them.
func omit(fields map[string]any, place string, less func(place string)) {
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		was := fields[field]
		switch v := was.(type) {
		case map[string]any:
			omit(v, place+field+".", less)
		case []any:
			if inner, ok := v[0].(map[string]any); ok {
				omit(inner, place+field+"[].", less)
			}
		}
		switch place + field {
		case "type", "count", "syscalls[].count": // a count that is absent is 1
		case "iptables_rules": // network.firewall_rules is there
		default:
			delete(fields, field)
			less(place + field)
			fields[field] = was
		}
	}
}
