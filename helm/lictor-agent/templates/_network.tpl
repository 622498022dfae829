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
{{- $port := regexFind ":[0-9]+$" (regexFind "^[a-zA-Z0-9]+://[^/?#]*" (toString .url)) -}}
{{- ternary (trimPrefix ":" $port) (toString .otherwise) (not (empty $port)) -}}
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
