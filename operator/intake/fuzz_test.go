package intake

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The sink of newBed panics when an invalid signal reaches it.
func fuzz(f *testing.F, path string) {
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newBed(Options{})
		code, answer := b.post(t, path, string(body))
		switch code {
		case http.StatusOK:
			if path == PathPixie {
				require.NotEmpty(t, b.got, "accepted, but nothing stored")
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			require.Empty(t, b.got, "refused, but stored")
			require.Less(t, len(answer.Message), 1000)
		default:
			t.Fatalf("status %d: %s", code, answer.Message)
		}
	})
}

func FuzzPixie(f *testing.F) {
	for _, seed := range []string{
		live,
		"[" + live + "," + live + "]",
		`{"cpu_throttle":` + live + `}`,
		`{"type":"cpu_throttle","pod_name":"a","namespace":"b","throttle_percentage":1e2,"throttle_ns":9223372036854775807,"ebpf_detection":true,"cpu_limit":0.01,"recommended_cpu_limit":1,"whatif":[{"limit_cores":1,"throttle_ratio":0,"low":0,"high":1}],"qos_class":"Guaranteed","prediction":{"outcome":"predicted","confidence":"high","periods":600,"window_seconds":60,"throttle_ratio":1,"check":{"timestamp":"2026-03-01T12:04:00Z","from_cpu_limit":1,"cpu_limit":2,"before_ratio":1,"measured_ratio":0}},"timestamp":"2026-03-01T12:05:00Z","resolved":false}`,
		`{"type":"pod_creation","pod_name":"web","namespace":"shop","total_syscalls":847,"namespace_ops":15,"cgroup_writes":23,"duration_ns":1.5e9,"timeline":[{"timestamp_ms":1772362800000,"actor":"kubelet","action":"x","details":""}],"syscalls":["clone",{"name":"mount","timestamp":"2026-03-01T11:00:00Z","count":2}],"timestamp":"2026-03-01T11:00:00Z"}`,
		`{"type":"pod_creation","pod_name":"web","namespace":"shop","pod_uid":"6f0f4f4e-0f0a-4bd6-9a3b-0d8a7c1f0b11","node_name":"n1","total_syscalls":14918,"setup_syscalls":8473,"shared_syscalls":5120,"shared_by":2,"namespace_ops":15,"cgroup_writes":64,"duration_ns":924000000,"complete":false,"incomplete_reasons":["the shim is older than the exporter"],"failed":true,"failure":"app never reached its entrypoint","mounts":91,"execs":12,"namespaces":[{"kind":"net","created":1,"entered":2}],"network":{"interfaces":["eth0"],"addresses":["10.0.0.2/24"],"routes":["default via 10.0.0.1 dev eth0"],"firewall_rules":0},"iptables_rules":3,"containers":[{"name":"app","container_id":"0f3a","init":false,"created_ms":791,"started_ms":912,"entrypoint_ms":924.1,"entrypoint":"/bin/app","failure":"","syscalls":6000,"setup_syscalls":3000}],"roles":[{"role":"runc init","container":"app","syscalls":3484}],"timeline":[{"timestamp_ms":311,"duration_ms":47,"actor":"cni","action":"bridge","container":"app"}],"timestamp":"2026-03-01T11:00:00Z"}`,
		`{"type":"network_issue","pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z","drops":3,"drop_reasons":{"qdisc_drop":3}}`,
		`{"memory_pressure":{"pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z","oom_kills":1}}`,
		`{"type":"network_issue","pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z","drops":0}`,
		`{"type":"security_event","event":"mount","events":{"mount":2,"bpf":1},"binary":"/bin/mount","comm":"mount","pid":7,"uid":0,"ancestry":["sh","init"],"detail":"a on b","pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z"}`,
		`{"type":"security_event","event":"setns","pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z"}`,
		`{"type":"cpu_starvation","runqueue_wait_percent":1,"pod_name":"a","namespace":"b","timestamp":"2026-03-01T11:00:00Z"}`,
		`{"type":"cpu_throttle","type":"pod_creation"}`,
		`{"type":"cpu_throttle","pod_name":"../x","namespace":"\u0000"}`,
		strings.Repeat("[", 40) + strings.Repeat("]", 40),
		"[]", "{}", "null", "\xff",
	} {
		f.Add([]byte(seed))
	}
	fuzz(f, PathPixie)
}

func FuzzAlertmanager(f *testing.F) {
	body, err := os.ReadFile("testdata/alertmanager.json")
	require.NoError(f, err)
	f.Add(body)
	for _, seed := range []string{
		`{"version":"4","alerts":[]}`,
		`{"version":"4","alerts":[{}],"truncatedAlerts":1}`,
		`{"version":"4","alerts":[` + alert("firing", ours, figure, started) + `]}`,
		`{"version":"4","alerts":[` + alert("resolved", ours, `"throttle_percentage":"-Inf"`, `"endsAt":"2026-03-01T12:00:00+01:00"`) + `]}`,
		`{"version":"4","alerts":[` + alert("firing", ours, `"signal_type":"security_event","setns":"1e308"`, started) + `]}`,
		`{"version":"5","alerts":[]}`, "[]", "\xff",
	} {
		f.Add([]byte(seed))
	}
	fuzz(f, PathAlertmanager)
}
