{{/* Labels that select pods. Never to be changed: a DaemonSet's selector is immutable. */}}
{{- define "korat.selector" -}}
app.kubernetes.io/name: korat
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "korat.labels" -}}
app.kubernetes.io/part-of: korat
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "korat.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Of a component's values. $(NODE_IP) may turn out to be IPv6; brackets do no harm around others. */}}
{{- define "korat.httpAddress" -}}
[{{ .httpAddress }}]:{{ .httpPort }}
{{- end }}

{{/* A probe of a path, where the values of a component say that it answers. */}}
{{- define "korat.probe" -}}
httpGet: {host: {{ ternary "" .values.httpAddress (eq .values.httpAddress "$(NODE_IP)") | quote }}, port: {{ .values.httpPort }}, path: {{ .path }}}
{{- end }}
