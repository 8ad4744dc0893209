{{/* The base of all names: the release's, with the chart's unless it is in there already. Room is left for the parts' suffixes. */}}
{{- define "volplane.name" -}}
{{- $base := .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name)) -}}
{{- $base | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* What cluster-wide objects are called: two releases of one name may live in two namespaces. */}}
{{- define "volplane.clusterName" -}}
{{- printf "%s-%s" (include "volplane.name" .) .Release.Namespace -}}
{{- end }}

{{/* Labels that never change: selectors are made of them. Called with (list . "node"). */}}
{{- define "volplane.selector" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: {{ $top.Chart.Name }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of an object. Called with (list . "node"). */}}
{{- define "volplane.labels" -}}
{{- $top := index . 0 -}}
{{ include "volplane.selector" . }}
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_" }}
{{- with $top.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image: with imageRegistry all come from that one flat prefix, else each from its own place. Called with (list . .Values.image). */}}
{{- define "volplane.image" -}}
{{- $top := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- with $top.Values.imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (base $image.repository) -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default $top.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The driver's socket as kubelet and the node's pods see it. */}}
{{- define "volplane.socketDir" -}}
{{ trimSuffix "/" .Values.kubeletDirectory }}/plugins/{{ .Values.driverName }}
{{- end }}

{{/* What all pods have. Called with (list . .Values.node). */}}
{{- define "volplane.pod" -}}
{{- $top := index . 0 -}}
{{- $part := index . 1 -}}
{{- with $top.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Nothing that a process could become more with. */}}
{{- define "volplane.unprivileged" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}
