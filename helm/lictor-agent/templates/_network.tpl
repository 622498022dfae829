{{/* Ports and rules of the NetworkPolicy. */}}

{{/* A rule: (dict "to" peers "tcp" ports "udp" ports). */}}
{{- define "lictor.egress" -}}
- ports:
    {{- range .udp | default list }}
    - port: {{ int64 . }}
      protocol: UDP
    {{- end }}
    {{- range .tcp | default list }}
    - port: {{ int64 . }}
      protocol: TCP
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The port of a URL: (dict "url" "https://host:port" "otherwise" 443). */}}
{{- define "lictor.port" -}}
{{- $port := regexFind ":[0-9]+$" (regexFind "^[^/?#]*" (regexReplaceAll "^[a-zA-Z0-9]+://" (toString .url) "")) -}}
{{- ternary (trimPrefix ":" $port) (toString .otherwise) (not (empty $port)) -}}
{{- end -}}

{{/*
Ports of the proxy, which a variable may name, too. One whose value stands elsewhere cannot be read here, and the policy would be
wrong unseen.
*/}}
{{- define "lictor.proxyPorts" -}}
{{- $ports := list -}}
{{- $found := dict -}}
{{- range include "lictor.variables" . | fromYamlArray -}}
{{- if has .name (list "PROXY_HOST" "PROXY_PORT" "PROXY_SCHEME" "HTTPS_PROXY" "https_proxy") -}}
{{- if hasKey . "valueFrom" -}}
{{- if not $.Values.networkPolicy.egress.extra -}}
{{- fail (printf "extraEnv (or custom_envs): the NetworkPolicy cannot know what %s holds: use the value proxy.url, or let the proxy through by networkPolicy.egress.extra" .name) -}}
{{- end -}}
{{- else }}{{ $_ := set $found .name (.value | default "") }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $urls := list (dig "proxy" "url" "" (include "lictor.settings" . | fromYaml)) $found.HTTPS_PROXY $found.https_proxy -}}
{{- if $found.PROXY_HOST -}}
{{- $urls = append $urls (printf "%s://%s%s" ($found.PROXY_SCHEME | default "http" | lower) $found.PROXY_HOST (ternary "" (printf ":%s" $found.PROXY_PORT) (empty $found.PROXY_PORT))) -}}
{{- end -}}
{{- range compact $urls -}}
{{- if ne . "none" }}{{ $ports = append $ports (include "lictor.port" (dict "url" . "otherwise" (ternary 443 80 (hasPrefix "https:" (lower .)))) | int64) }}{{ end -}}
{{- end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}

{{/* Ports of the collector of traces. */}}
{{- define "lictor.collectorPorts" -}}
{{- $urls := list (dig "telemetry" "otlp_endpoint" "" (include "lictor.settings" . | fromYaml)) -}}
{{- range include "lictor.variables" . | fromYamlArray -}}
{{- if has .name (list "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") -}}
{{- if and (hasKey . "valueFrom") (not $.Values.networkPolicy.egress.extra) -}}
{{- fail (printf "extraEnv (or custom_envs): the NetworkPolicy cannot know what %s holds: use config.telemetry.otlp_endpoint, or let the collector through by networkPolicy.egress.extra" .name) -}}
{{- end -}}
{{- $urls = append $urls .value -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range compact $urls }}{{ $ports = append $ports (include "lictor.port" (dict "url" . "otherwise" 4317) | int64) }}{{ end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}

{{/* Ports where the control plane listens. That of the container, too: rules see a pod's port, not its service's. */}}
{{- define "lictor.controlPlanePorts" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- toYaml (list (include "lictor.port" (dict "url" $settings.control_plane "otherwise" 7443) | int64) (int64 7443) | uniq) -}}
{{- end -}}

{{/* Ports of KDCs: those of the values, and those that realms name. */}}
{{- define "lictor.kdcPorts" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egress.kdcPorts }}{{ $ports = append $ports (int64 .) }}{{ end -}}
{{- range $realm := dig "kerberos" "realms" (dict) $settings -}}
{{- $named := list -}}
{{- range $key := list "kdc" "primary_kdc" "kpasswd_server" "admin_server" -}}
{{- $value := get $realm $key | default list -}}
{{- $named = concat $named (ternary $value (list $value) (kindIs "slice" $value)) -}}
{{- end -}}
{{- range $named -}}
{{- with regexFind ":[0-9]+$" (toString .) }}{{ $ports = append $ports (trimPrefix ":" . | int64) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}
