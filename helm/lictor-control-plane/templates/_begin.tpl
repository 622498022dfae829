{{/* What every template does first: values without holes, and none that would be overridden unseen. */}}

{{/*
Helm takes a default away where somebody writes a section and leaves it empty (`image:`), which means "as it is" to whoever writes it.
Puts the defaults back, into .Values itself.
*/}}
{{- define "lictorControlPlane.begin" -}}
{{- include "lictorControlPlane.fill" (dict "into" .Values "from" (include "lictorControlPlane.defaults" . | fromJson)) -}}
{{- include "lictorControlPlane.checkVariables" . -}}
{{- /* The message of a schema would repeat it. */ -}}
{{- if not (regexMatch "^(https?://[^/@?#]+/?)?$" (dig "telemetry" "otlp_endpoint" "" (.Values.config | default dict))) -}}
{{- fail "config.telemetry.otlp_endpoint is not of the form https://host:port; credentials go into a file (otlp_headers_file)" -}}
{{- end -}}
{{- end -}}

{{- define "lictorControlPlane.fill" -}}
{{- $into := .into -}}
{{- range $key, $value := .from -}}
{{- if or (not (hasKey $into $key)) (kindIs "invalid" (index $into $key)) -}}
{{- $_ := set $into $key $value -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (index $into $key)) -}}
{{- include "lictorControlPlane.fill" (dict "into" (index $into $key) "from" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A variable goes before control-plane.yaml, so that what was made of the settings (ports, probes, mounts) would be wrong unseen. */}}
{{- define "lictorControlPlane.checkVariables" -}}
{{- $instead := dict
  "LICTOR_CONTROL_PLANE_LISTEN" "grpc.address and grpc.port"
  "LICTOR_CONTROL_PLANE_HTTP_LISTEN" "http.address and http.port"
  "LICTOR_CONTROL_PLANE_STATE_DIR" "persistence"
  "LICTOR_CONTROL_PLANE_NAMES" "names"
  "LICTOR_CONTROL_PLANE_MASTER_KEY_FILE" "masterKey.existingSecret"
  "LICTOR_CONTROL_PLANE_TELEMETRY__OTLP_ENDPOINT" "config.telemetry.otlp_endpoint"
-}}
{{- range .Values.extraEnv -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "extraEnv: %s would go before what the chart has made: use the value %s" .name (get $instead .name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ports of the collector of traces. */}}
{{- define "lictorControlPlane.collectorPorts" -}}
{{- $urls := list (dig "telemetry" "otlp_endpoint" "" (include "lictorControlPlane.settings" . | fromYaml)) -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") -}}
{{- if and (hasKey . "valueFrom") (not $.Values.networkPolicy.egress.extra) -}}
{{- fail (printf "extraEnv: the NetworkPolicy cannot know what %s holds: use config.telemetry.otlp_endpoint, or let the collector through by networkPolicy.egress.extra" .name) -}}
{{- end -}}
{{- $urls = append $urls .value -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range compact $urls -}}
{{- $port := regexFind ":[0-9]+$" (regexFind "^[^/?#]*" (regexReplaceAll "^[a-zA-Z0-9]+://" . "")) | trimPrefix ":" | default "4317" -}}
{{- $ports = append $ports (int64 $port) -}}
{{- end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}

{{/*
What users add to a list of the chart's: (dict "own" names "given" list "key" "name" "value" "extraEnv"). Kubernetes
refuses a name twice.
*/}}
{{- define "lictorControlPlane.added" -}}
{{- $seen := dict -}}
{{- $kept := list -}}
{{- range .given -}}
{{- $name := index . $.key | toString -}}
{{- if hasPrefix "/" $name }}{{ $name = trimSuffix "/" $name | default "/" }}{{ end -}}
{{- if has $name $.own -}}
{{- fail (printf "%s: %s is the chart's own, and there cannot be two: choose another" $.value $name) -}}
{{- end -}}
{{- if not (hasKey $seen $name) -}}
{{- $_ := set $seen $name (toJson .) -}}
{{- $kept = append $kept . -}}
{{- else if ne (toJson .) (get $seen $name) -}}
{{- fail (printf "%s: %s is given twice, and differs" $.value $name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end -}}
