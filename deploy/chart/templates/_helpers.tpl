{{- /* Labels of what belongs to a component: include "labels" "exporter". */ -}}
{{- define "kernel-gossip.labels" -}}
app.kubernetes.io/name: kernel-gossip-{{ . }}
app.kubernetes.io/part-of: kernel-gossip
{{- end }}

{{- /* The image of a component: include "image" (list $ .Values.exporter.image). */ -}}
{{- define "kernel-gossip.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- /* The architectures that the images are built for. */ -}}
{{- define "kernel-gossip.affinity" -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: kubernetes.io/arch, operator: In, values: [amd64, arm64]}
{{- end }}
