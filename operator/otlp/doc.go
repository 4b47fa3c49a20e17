// Package otlp is the door for OpenTelemetry's protocol over gRPC: Pixie exports
// nothing else (px.export with px.otel.Data), and every OpenTelemetry Collector
// can send it.
//
// What is taken:
//
//	gauges and delta sums   kernel_gossip.<signal type>.<value>
//	spans                   kernel_gossip.<signal type>.<event>, one event each
//
// with the signal types and values of package wire. The numbers of one row, that
// is of one subject and time, are one signal. The subject is k8s.namespace.name,
// k8s.pod.name, k8s.container.name, k8s.pod.uid and k8s.node.name, of the resource
// or of the data point; Pixie's "namespace/pod" is split.
//
// Pixie's windows overlap by a second (query_broker/script_runner), Collectors send
// again what timed out, and a row of Pixie is repeated for each of a pod's services:
// so a subject's number of one time counts once, whatever it comes in.
//
// Answers, by the protocol's own rules (opentelemetry.io/docs/specs/otlp):
//
//	OK                  stored. What can't be is in partial_success, counted and
//	                    named, and is not worth sending again
//	UNAUTHENTICATED     no or another token; nothing of the message is read
//	RESOURCE_EXHAUSTED  larger than 4 MiB; or, with RetryInfo, too many requests
//	UNAVAILABLE         with RetryInfo: the store fails, send the same again
package otlp
