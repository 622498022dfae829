{{/* What every template does first: values without holes, and none that would be overridden unseen. */}}

{{/*
Helm takes a default away where somebody writes a section and leaves it empty (`image:`), which means "as it is" to whoever writes it.
Puts the defaults back, into .Values itself.
*/}}
{{- define "lictor.begin" -}}
{{- include "lictor.fill" (dict "into" .Values "from" (include "lictor.defaults" . | fromJson)) -}}
{{- include "lictor.checkVariables" . -}}
{{- include "lictor.checkTexts" . -}}
{{- end -}}

{{- define "lictor.fill" -}}
{{- $into := .into -}}
{{- range $key, $value := .from -}}
{{- if or (not (hasKey $into $key)) (kindIs "invalid" (index $into $key)) -}}
{{- $_ := set $into $key $value -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (index $into $key)) -}}
{{- include "lictor.fill" (dict "into" (index $into $key) "from" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables that users give. */}}
{{- define "lictor.variables" -}}
{{- toYaml (concat (.Values.extraEnv | default list) (.Values.custom_envs | default list)) -}}
{{- end -}}

{{/* A variable goes before agent.yaml, so that what was made of the settings (grace, probes, rules) would be wrong unseen. */}}
{{- define "lictor.checkVariables" -}}
{{- $instead := dict
  "LICTOR_AGENT_DRAIN_GRACE" "config.drain_grace"
  "LICTOR_AGENT_HTTP_LISTEN" "http.address and http.port"
  "LICTOR_AGENT_STATE_DIR" "persistence"
  "LICTOR_AGENT_NAME" "agentNamePrefix"
  "LICTOR_AGENT_SLOTS" "config.slots"
  "LICTOR_AGENT_BOOTSTRAP__TIMEOUT" "config.bootstrap.timeout"
  "LICTOR_AGENT_BOOTSTRAP__SCRIPT_FILE" "bootstrap.existingSecret"
  "LICTOR_AGENT_CONTROL_PLANE" "controlPlane.endpoint"
  "MANAGER_HOST_AND_PORT" "controlPlane.endpoint"
  "HARNESS_MANAGER_HOST_AND_PORT" "controlPlane.endpoint"
  "LICTOR_AGENT_JOIN_TOKEN_FILE" "joinToken.existingSecret"
  "LICTOR_AGENT_PROXY__URL" "proxy.url"
  "LICTOR_AGENT_TELEMETRY__OTLP_ENDPOINT" "config.telemetry.otlp_endpoint"
  "LICTOR_AGENT_CA_FILES" "ca.existingSecrets or config.ca_files"
  "LICTOR_AGENT_POLICY_FILE" "policy.existingConfigMap"
-}}
{{- if .Values.autoscaling.targetSlotsUsed }}{{ $_ := set $instead "DELEGATE_TASK_CAPACITY" "config.slots" }}{{ end -}}
{{- range include "lictor.variables" . | fromYamlArray -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "extraEnv (or custom_envs): %s would go before what the chart has made: use the value %s" .name (get $instead .name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Texts that may hold a secret by mistake: messages of the schema would repeat them, these name the value only. */}}
{{- define "lictor.checkTexts" -}}
{{- $v := .Values -}}
{{- range $one := list
  (list "joinToken.existingSecret" $v.joinToken.existingSecret)
  (list "existingDelegateToken" $v.existingDelegateToken)
  (list "proxy.existingSecret" $v.proxy.existingSecret)
-}}
{{- if not (regexMatch "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$" (index $one 1 | default "" | toString)) -}}
{{- fail (printf "%s is not the name of a Secret" (index $one 0)) -}}
{{- end -}}
{{- end -}}
{{- range $one := list (list "controlPlane.endpoint" $v.controlPlane.endpoint) (list "managerEndpoint" $v.managerEndpoint) (list "config.control_plane" (dig "control_plane" "" ($v.config | default dict))) -}}
{{- if contains "@" (index $one 1 | default "" | toString) -}}
{{- fail (printf "%s holds an @: it is of the form https://host:port, without user name and password" (index $one 0)) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^https://[^/?#@]+/?$" (dig "control_plane" "https://x" ($v.config | default dict))) -}}
{{- fail "config.control_plane is not of the form https://host:port" -}}
{{- end -}}
{{- range $one := list (list "proxy.url" $v.proxy.url) (list "config.proxy.url" (dig "proxy" "url" "" ($v.config | default dict))) -}}
{{- if not (regexMatch "^(none|([Hh][Tt][Tt][Pp][Ss]?://)?[^/@?#\\s]+/?)?$" (index $one 1 | default "" | toString)) -}}
{{- fail (printf "%s is not of the form http://host:port; user name and password go into proxy.username and proxy.existingSecret" (index $one 0)) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])?$" ($v.proxyHost | default "" | toString)) -}}
{{- fail "proxyHost is not the name or the address of a host: scheme, port, user name and password go into proxyScheme, proxyPort, proxyUser and proxyPassword" -}}
{{- end -}}
{{- range $one := list (list "proxy.username" $v.proxy.username) (list "proxyUser" $v.proxyUser) (list "config.proxy.username" (dig "proxy" "username" "" ($v.config | default dict))) -}}
{{- if contains ":" (index $one 1 | default "" | toString) -}}
{{- fail (printf "%s holds a colon, which no user name can: the password goes into proxy.existingSecret" (index $one 0)) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^(https?://[^/@?#]+/?)?$" (dig "telemetry" "otlp_endpoint" "" ($v.config | default dict))) -}}
{{- fail "config.telemetry.otlp_endpoint is not of the form https://host:port; credentials go into a file (otlp_headers_file)" -}}
{{- end -}}
{{- range $one := list (list "ca.bundle" $v.ca.bundle) (list "shared_certificates.ca_bundle" $v.shared_certificates.ca_bundle) -}}
{{- $text := index $one 1 | default "" | toString -}}
{{- if contains "PRIVATE KEY" $text }}{{ fail (printf "%s holds a private key, which has no place in a ConfigMap" (index $one 0)) }}{{ end -}}
{{- if and (trim $text) (not (contains "-----BEGIN CERTIFICATE-----" $text)) }}{{ fail (printf "%s is not a PEM certificate" (index $one 0)) }}{{ end -}}
{{- end -}}
{{- range $file, $content := $v.kerberos.keytabs.inline -}}
{{- if not (regexMatch "^[A-Za-z0-9+/=\\s]+$" (toString $content)) -}}
{{- fail (printf "kerberos.keytabs.inline: %s is not base64 (base64 -w0 FILE)" $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What users add to a list of the chart's: (dict "own" names "given" list "key" "name" "value" "extraEnv (or custom_envs)"). Kubernetes
refuses a name twice.
*/}}
{{- define "lictor.added" -}}
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

{{/* Names in a list: (dict "list" yaml "key" "name"). */}}
{{- define "lictor.namesIn" -}}
{{- $names := list -}}
{{- $key := .key -}}
{{- range .list | fromYamlArray }}{{ $names = append $names (index . $key) }}{{ end -}}
{{- toYaml $names -}}
{{- end -}}
