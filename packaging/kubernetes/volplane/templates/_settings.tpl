{{/* A value in TOML. Helm reads all numbers as floating-point ones; whole numbers become integers again. */}}
{{- define "volplane.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "volplane.tomlValue" $item }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{ if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* A table in TOML with its inner tables. Called with (list "path.of.table" table). */}}
{{- define "volplane.toml" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- range $key, $value := $table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "volplane.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := $table }}
{{- if kindIs "map" $value }}
{{- $inner := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}

[{{ $inner }}]
{{- include "volplane.toml" (list $inner $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the settings of node and controller have in common, as YAML. Called with (list . roles register endpoint). */}}
{{- define "volplane.fixedSettings" -}}
{{- $top := index . 0 -}}
run_dir: /run/volplane
kubelet_dir: {{ trimSuffix "/" $top.Values.kubeletDirectory }}
docker: { enabled: false }
csi:
  roles: [identity, {{ index . 1 }}]
  register: {{ index . 2 }}
  cvmfs:
    name: {{ $top.Values.driverName }}
    endpoint: {{ index . 3 }}
{{- end }}

{{/* volplane.toml of the node: what the chart decides wins over `config`. */}}
{{- define "volplane.nodeSettings" -}}
{{- $endpoint := printf "unix://%s/csi.sock" (include "volplane.socketDir" .) -}}
{{- $fixed := include "volplane.fixedSettings" (list . "node" (not .Values.registrar.enabled) $endpoint) | fromYaml -}}
{{- $_ := set $fixed "state_dir" "/var/lib/volplane" -}}
{{- $_ := set $fixed "cvmfs" (dict "config_dir" "/etc/cvmfs" "cache_dir" "/var/cache/volplane/cvmfs") -}}
{{- $worker := dict "user" "60987" -}}
{{- if .Values.workers.enabled }}{{ $_ := set $worker "nursery" "/run/volplane/nursery/nursery.sock" }}{{ end -}}
{{- $_ := set $fixed "worker" $worker -}}
{{- if .Values.podMonitor.enabled -}}
{{- $_ := set $fixed "metrics" (dict "listen" (printf "0.0.0.0:%d" (int .Values.podMonitor.port)) "other_hosts" true) -}}
{{- end -}}
{{- include "volplane.toml" (list "" (mustMergeOverwrite (deepCopy .Values.config) $fixed)) | trim -}}
{{- end }}

{{/* volplane.toml of the controller: it mounts nothing. Its journal has a directory of its own, as an emptyDir is writable for all. */}}
{{- define "volplane.controllerSettings" -}}
{{- $fixed := include "volplane.fixedSettings" (list . "controller" false "unix:///csi/csi.sock") | fromYaml -}}
{{- $_ := set $fixed "state_dir" "/var/lib/volplane/journal" -}}
{{- $_ := set $fixed "cvmfs" (dict "config_dir" "/etc/cvmfs" "cache_dir" "/var/lib/volplane/cache") -}}
{{- include "volplane.toml" (list "" (mustMergeOverwrite (deepCopy .Values.config) $fixed)) | trim -}}
{{- end }}

{{/* Name of the ConfigMap with /etc/cvmfs; keys are file names with "/" written as "--". */}}
{{- define "volplane.cvmfsFiles" -}}
{{- $files := dict -}}
{{- with .Values.cvmfs.defaultLocal }}{{ $_ := set $files "default.local" . }}{{ end -}}
{{- range $directory, $entries := dict "default.d" .Values.cvmfs.defaultD "domain.d" .Values.cvmfs.domainD "config.d" .Values.cvmfs.configD "keys" .Values.cvmfs.keys -}}
{{- range $name, $text := $entries }}{{ $_ := set $files (printf "%s/%s" $directory $name) $text }}{{ end -}}
{{- end -}}
{{- toJson $files -}}
{{- end }}

{{/* The volume that is /etc/cvmfs. */}}
{{- define "volplane.cvmfsVolume" -}}
name: cvmfs-config
{{- if .Values.cvmfs.hostPath }}
hostPath: { path: {{ .Values.cvmfs.hostPath }}, type: Directory }
{{- else if .Values.cvmfs.existingConfigMap }}
configMap:
  name: {{ .Values.cvmfs.existingConfigMap }}
  {{- with .Values.cvmfs.existingConfigMapItems }}
  items:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else }}
configMap:
  name: {{ include "volplane.name" . }}-cvmfs
  items:
    {{- range $path, $text := include "volplane.cvmfsFiles" . | fromJson }}
    - { key: {{ $path | replace "/" "--" | quote }}, path: {{ $path | quote }} }
    {{- end }}
{{- end }}
{{- end }}
