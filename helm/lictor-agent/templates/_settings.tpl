{{/* The agent's settings (agent.yaml): what values say, with `config` beneath. */}}

{{- define "lictor.settings" -}}
{{- $values := .Values -}}
{{- $given := deepCopy ($values.config | default dict) -}}
{{- range $key, $instead := dict "http_listen" "http.address and http.port" "state_dir" "the chart, which mounts it" "name" "the pod's name and agentNamePrefix" -}}
{{- if hasKey $given $key -}}
{{- fail (printf "config.%s: comes from %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- $settings := dict -}}

{{- $endpoint := include "lictor.endpoint" . -}}
{{- with $endpoint }}{{ $_ := set $settings "control_plane" . }}{{ end -}}
{{- if not (or $endpoint $given.control_plane) -}}
{{- fail "controlPlane.endpoint (or managerEndpoint) is required: where your control plane listens, such as https://lictor.example:7443" -}}
{{- end -}}

{{- if include "lictor.joinSecret" . }}{{ $_ := set $settings "join_token_file" "/etc/lictor/join/token" }}{{ end -}}
{{- if not (or $settings.join_token_file $given.join_token_file) -}}
{{- fail "joinToken.existingSecret, joinToken.value (or existingDelegateToken, delegateToken) is required: make a token with `lictor token create --max-uses 0`" -}}
{{- end -}}

{{- with include "lictor.tags" . | fromYamlArray }}{{ $_ := set $settings "tags" . }}{{ end -}}
{{- with $values.description | default "" | toString | trim }}{{ $_ := set $settings "description" (regexReplaceAll "\\s+" . " ") }}{{ end -}}
{{- if include "lictor.isTrue" $values.pollForTasks }}{{ $_ := set $settings "transport" "poll" }}{{ end -}}

{{- with include "lictor.kerberos" . | fromYaml }}{{ $_ := set $settings "kerberos" . }}{{ end -}}
{{- if include "lictor.bootstrapSource" . }}{{ $_ := set $settings "bootstrap" (dict "script_file" "/etc/lictor/bootstrap/init.sh") }}{{ end -}}
{{- with include "lictor.proxy" . | fromYaml }}{{ $_ := set $settings "proxy" . }}{{ end -}}
{{- with include "lictor.policyFile" . }}{{ $_ := set $settings "policy_file" . }}{{ end -}}

{{- include "lictor.agree" (dict "chart" $settings "given" $given "path" "config") -}}
{{- with include "lictor.caFiles" . | fromYamlArray }}{{ $_ := set $given "ca_files" . }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy $settings) $given) -}}
{{- end -}}

{{/* Fails where `config` says something else than the value of the chart that stands for the same. */}}
{{- define "lictor.agree" -}}
{{- $given := .given -}}
{{- $path := .path -}}
{{- range $key, $value := .chart -}}
{{- if hasKey $given $key -}}
{{- $other := get $given $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $other) -}}
{{- include "lictor.agree" (dict "chart" $value "given" $other "path" (printf "%s.%s" $path $key)) -}}
{{- else if ne (toJson $value) (toJson $other) -}}
{{- fail (printf "%s.%s says something else than the value of the chart that stands for it: give one of them" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The control plane's URL without a path. */}}
{{- define "lictor.endpoint" -}}
{{- $own := .Values.controlPlane.endpoint | default "" | trim -}}
{{- $harness := .Values.managerEndpoint | default "" | trim -}}
{{- if $harness -}}
{{- $harness = ternary $harness (printf "https://%s" $harness) (contains "://" $harness) -}}
{{- $harness = regexFind "^[a-zA-Z]+://[^/?#]*" $harness -}}
{{- end -}}
{{- $endpoint := include "lictor.either" (list "controlPlane.endpoint" (trimSuffix "/" $own) "managerEndpoint" $harness) -}}
{{- if $endpoint -}}
{{- if not (regexMatch "^https://(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$" $endpoint) -}}
{{- fail (printf "controlPlane.endpoint (or managerEndpoint): %q is not of the form https://host:port" $endpoint) -}}
{{- end -}}
{{- if regexMatch "(?i)^https://([^:]*\\.)?harness\\.io(:|$)" $endpoint -}}
{{- fail (printf "controlPlane.endpoint (or managerEndpoint): %s is Harness's platform; put the address of your own control plane in its place" $endpoint) -}}
{{- end -}}
{{- end -}}
{{- $endpoint -}}
{{- end -}}

{{- define "lictor.joinValue" -}}
{{- include "lictor.either" (list "joinToken.value" .Values.joinToken.value "delegateToken" .Values.delegateToken) -}}
{{- end -}}

{{/* Name and key of the Secret with the join token. */}}
{{- define "lictor.joinSecret" -}}
{{- $existing := include "lictor.either" (list "joinToken.existingSecret" .Values.joinToken.existingSecret "existingDelegateToken" .Values.existingDelegateToken) -}}
{{- $value := include "lictor.joinValue" . -}}
{{- if and $existing $value -}}
{{- fail "the join token is given by value and by an existing Secret: give one of them" -}}
{{- else if $existing -}}
{{- /* The name that one knows from Harness goes with the key that one knows from there. */ -}}
{{- toYaml (dict "name" $existing "key" (ternary .Values.joinToken.key "DELEGATE_TOKEN" (not (empty .Values.joinToken.existingSecret)))) -}}
{{- else if $value -}}
{{- toYaml (dict "name" (printf "%s-join" (include "lictor.fullname" .)) "key" "token") -}}
{{- end -}}
{{- end -}}

{{- define "lictor.tags" -}}
{{- $tags := list -}}
{{- $given := .Values.tags -}}
{{- if not (kindIs "slice" $given) }}{{ $given = splitList "," ($given | default "" | toString) }}{{ end -}}
{{- range append $given (.Values.delegateName | default "") -}}
{{- $tag := . | toString | trim -}}
{{- if $tag -}}
{{- if not (regexMatch "^[\\pL\\pN_.:/=@-]{1,128}$" $tag) -}}
{{- fail (printf "tags (with delegateName): %q is not a tag, which has letters, digits and -_.:/=@" $tag) -}}
{{- end -}}
{{- $tags = append $tags $tag -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $tags) -}}
{{- end -}}

{{- define "lictor.hasKrb5File" -}}
{{- $kerberos := .Values.kerberos -}}
{{- if and $kerberos.krb5Conf $kerberos.existingConfigMap -}}
{{- fail "kerberos.krb5Conf and kerberos.existingConfigMap both give a krb5.conf: give one of them" -}}
{{- end -}}
{{- if or $kerberos.krb5Conf $kerberos.existingConfigMap -}}true{{- end -}}
{{- end -}}

{{- define "lictor.kerberos" -}}
{{- $kerberos := .Values.kerberos -}}
{{- $settings := dict -}}
{{- range $name := list "defaultRealm" "domainRealm" "dnsLookupKdc" "rdns" "forwardable" "ticketLifetime" "renewLifetime" "udpPreferenceLimit" -}}
{{- $value := get $kerberos $name -}}
{{- if not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (not $value)) (and (kindIs "map" $value) (not $value))) -}}
{{- $_ := set $settings (snakecase $name) $value -}}
{{- end -}}
{{- end -}}
{{- if $kerberos.realms -}}
{{- $realms := dict -}}
{{- range $realm, $about := $kerberos.realms -}}
{{- $written := dict -}}
{{- range $name, $value := $about }}{{ $_ := set $written (snakecase $name) $value }}{{ end -}}
{{- $_ := set $realms $realm $written -}}
{{- end -}}
{{- $_ := set $settings "realms" $realms -}}
{{- end -}}
{{- if include "lictor.hasKrb5File" . -}}
{{- if $settings -}}
{{- fail (printf "kerberos: a krb5.conf and %s are both given, and only one of them would count: give one of them" (keys $settings | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $_ := set $settings "krb5_conf" "/etc/lictor/krb5/krb5.conf" -}}
{{- end -}}
{{- $keytabs := list -}}
{{- range include "lictor.keytabSources" . | fromYamlArray }}{{ $keytabs = append $keytabs .path }}{{ end -}}
{{- with $keytabs }}{{ $_ := set $settings "keytabs" . }}{{ end -}}
{{- if $settings }}{{ toYaml $settings }}{{ end -}}
{{- end -}}

{{/*
A volume for each source, because two may use one key: (dict "sources" ... "volume" "ca" "path" "/etc/lictor/ca"). One alone is at
the path itself; more have a directory each below it, by their names.
*/}}
{{- define "lictor.spreadOut" -}}
{{- $all := .sources | uniq -}}
{{- $volumes := list -}}
{{- $taken := list -}}
{{- range $number, $source := $all -}}
{{- $one := dict "kind" $source.kind "name" (toString $source.name) "volume" $.volume "path" $.path -}}
{{- if gt (len $all) 1 -}}
{{- $directory := ternary (printf "%s.%s" $source.name (lower $source.kind)) (toString $source.name) (has (toString $source.name) $taken) -}}
{{- $taken = append $taken $directory -}}
{{- $_ := set $one "volume" (printf "%s-%d" $.volume $number) -}}
{{- $_ := set $one "path" (printf "%s/%s" $.path $directory) -}}
{{- end -}}
{{- $volumes = append $volumes $one -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{- define "lictor.keytabSources" -}}
{{- $sources := list -}}
{{- if .Values.kerberos.keytabs.inline }}{{ $sources = append $sources (dict "kind" "secret" "name" (printf "%s-keytabs" (include "lictor.fullname" .))) }}{{ end -}}
{{- range .Values.kerberos.keytabs.existingSecrets | default list }}{{ $sources = append $sources (dict "kind" "secret" "name" .) }}{{ end -}}
{{- include "lictor.spreadOut" (dict "sources" $sources "volume" "keytabs" "path" "/etc/lictor/keytabs") -}}
{{- end -}}

{{- define "lictor.script" -}}
{{- $script := include "lictor.either" (list "bootstrap.script" .Values.bootstrap.script "initScript" .Values.initScript) -}}
{{- /* Blank lines at its ends mean nothing to bash. */ -}}
{{- with $script }}{{ printf "%s\n" . }}{{ end -}}
{{- end -}}

{{/* Kind, name and key of what holds the bootstrap script. */}}
{{- define "lictor.bootstrapSource" -}}
{{- $bootstrap := .Values.bootstrap -}}
{{- $ways := list -}}
{{- if include "lictor.script" . }}{{ $ways = append $ways (dict "kind" "secret" "name" (printf "%s-bootstrap" (include "lictor.fullname" .)) "key" "init.sh") }}{{ end -}}
{{- with $bootstrap.existingSecret }}{{ $ways = append $ways (dict "kind" "secret" "name" . "key" $bootstrap.key) }}{{ end -}}
{{- with $bootstrap.existingConfigMap }}{{ $ways = append $ways (dict "kind" "configMap" "name" . "key" $bootstrap.key) }}{{ end -}}
{{- if gt (len $ways) 1 -}}
{{- fail "more than one of bootstrap.script (or initScript), bootstrap.existingSecret and bootstrap.existingConfigMap is given: give one of them" -}}
{{- end -}}
{{- range $variable := include "lictor.variables" . | fromYamlArray -}}
{{- if and $ways (has $variable.name (list "INIT_SCRIPT" "HARNESS_INIT_SCRIPT" "INIT_SCRIPT_PATH" "HARNESS_INIT_SCRIPT_PATH")) -}}
{{- fail (printf "extraEnv (or custom_envs) has %s beside a bootstrap script: give one of them" $variable.name) -}}
{{- end -}}
{{- end -}}
{{- with $ways }}{{ toYaml (first .) }}{{ end -}}
{{- end -}}

{{/* Whether any script runs before the agent, also one that comes by a variable or a setting. */}}
{{- define "lictor.hasScript" -}}
{{- $given := dig "bootstrap" "script_file" "" (.Values.config | default dict) -}}
{{- $found := or (include "lictor.bootstrapSource" .) $given -}}
{{- range $variable := include "lictor.variables" . | fromYamlArray -}}
{{- if has $variable.name (list "INIT_SCRIPT" "HARNESS_INIT_SCRIPT" "INIT_SCRIPT_PATH" "HARNESS_INIT_SCRIPT_PATH") }}{{ $found = true }}{{ end -}}
{{- end -}}
{{- if $found }}true{{ end -}}
{{- end -}}

{{- define "lictor.proxyPassword" -}}
{{- $own := .Values.proxy.password | default "" -}}
{{- $harness := .Values.proxyPassword | default "" -}}
{{- if and $own $harness (ne $own $harness) }}{{ fail "proxy.password and proxyPassword are two names of one value and differ: give one of them" }}{{ end -}}
{{- if and (or $own $harness) .Values.proxy.existingSecret }}{{ fail "the proxy's password is given by value and by proxy.existingSecret: give one of them" }}{{ end -}}
{{- $own | default $harness -}}
{{- end -}}

{{- define "lictor.proxy" -}}
{{- $values := .Values -}}
{{- $harness := "" -}}
{{- if $values.proxyHost -}}
{{- $port := ternary (printf ":%s" (toString $values.proxyPort)) "" (not (empty $values.proxyPort)) -}}
{{- $harness = printf "%s://%s%s" ($values.proxyScheme | default "http") $values.proxyHost $port -}}
{{- else if or $values.proxyPort $values.proxyUser $values.proxyPassword -}}
{{- fail "proxyPort, proxyUser and proxyPassword mean nothing without proxyHost" -}}
{{- end -}}
{{- $url := include "lictor.either" (list "proxy.url" $values.proxy.url "proxyHost (with proxyScheme and proxyPort)" $harness) -}}
{{- $user := include "lictor.either" (list "proxy.username" $values.proxy.username "proxyUser" $values.proxyUser) -}}
{{- $password := or (include "lictor.proxyPassword" .) $values.proxy.existingSecret -}}
{{- if and (or $user $password) (not $url) }}{{ fail "proxy.username and a password for the proxy mean nothing without proxy.url" }}{{ end -}}
{{- if and $password (not $user) }}{{ fail "a password for the proxy is given without proxy.username (or proxyUser)" }}{{ end -}}
{{- $exceptions := list -}}
{{- range splitList "," ($values.noProxy | default "") }}{{ with trim . }}{{ $exceptions = append $exceptions . }}{{ end }}{{ end -}}
{{- if and $values.proxy.noProxy $exceptions (ne (toJson $values.proxy.noProxy) (toJson $exceptions)) -}}
{{- fail "proxy.noProxy and noProxy are two names of one value and differ: give one of them" -}}
{{- end -}}
{{- $settings := dict -}}
{{- with $url }}{{ $_ := set $settings "url" . }}{{ end -}}
{{- with $user }}{{ $_ := set $settings "username" . }}{{ end -}}
{{- if $password }}{{ $_ := set $settings "password_file" "/etc/lictor/proxy/password" }}{{ end -}}
{{- with $values.proxy.noProxy | default $exceptions }}{{ $_ := set $settings "no_proxy" . }}{{ end -}}
{{- if $settings }}{{ toYaml $settings }}{{ end -}}
{{- end -}}

{{- define "lictor.caBundle" -}}
{{- include "lictor.either" (list "ca.bundle" .Values.ca.bundle "shared_certificates.ca_bundle" .Values.shared_certificates.ca_bundle) -}}
{{- end -}}

{{/* Volumes of authorities. */}}
{{- define "lictor.authorities" -}}
{{- $sources := list -}}
{{- if include "lictor.caBundle" . }}{{ $sources = append $sources (dict "kind" "configMap" "name" (printf "%s-ca" (include "lictor.fullname" .))) }}{{ end -}}
{{- $secrets := .Values.ca.existingSecrets | default list -}}
{{- with .Values.delegateCustomCa.secretName }}{{ $secrets = append $secrets . }}{{ end -}}
{{- range $secrets }}{{ $sources = append $sources (dict "kind" "secret" "name" .) }}{{ end -}}
{{- range .Values.ca.existingConfigMaps | default list }}{{ $sources = append $sources (dict "kind" "configMap" "name" .) }}{{ end -}}
{{- include "lictor.spreadOut" (dict "sources" $sources "volume" "ca" "path" "/etc/lictor/ca") -}}
{{- end -}}

{{/*
The setting ca_files, where the agent's own default (/etc/lictor/ca and /opt/harness-delegate/ca-bundle, where they exist) does not do.
Saying anything takes that default away, so that what it would find is said, too.
*/}}
{{- define "lictor.caFiles" -}}
{{- $given := dig "ca_files" (list) (.Values.config | default dict) -}}
{{- $paths := list -}}
{{- range include "lictor.authorities" . | fromYamlArray }}{{ $paths = append $paths .path }}{{ end -}}
{{- if or (gt (len $paths) 1) (and $paths $given) -}}
{{- range include "lictor.userMounts" . | fromYamlArray -}}
{{- if hasPrefix "/opt/harness-delegate/ca-bundle/" (printf "%s/" .mountPath) }}{{ $paths = append $paths "/opt/harness-delegate/ca-bundle" }}{{ end -}}
{{- end -}}
{{- toYaml (concat $paths $given | uniq) -}}
{{- else -}}
{{- toYaml $given -}}
{{- end -}}
{{- end -}}

{{- define "lictor.policyFile" -}}
{{- $policy := .Values.policy -}}
{{- if and $policy.rules $policy.existingConfigMap }}{{ fail "policy.rules and policy.existingConfigMap both give the policy: give one of them" }}{{ end -}}
{{- if $policy.rules -}}
/etc/lictor/policy/policy.yaml
{{- else if $policy.existingConfigMap -}}
/etc/lictor/policy/{{ $policy.key }}
{{- end -}}
{{- end -}}
