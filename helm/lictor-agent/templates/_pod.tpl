{{/* The pod, for the Deployment and the StatefulSet. */}}

{{/* What a container of each profile may do. */}}
{{- define "lictor.containerSecurity" -}}
{{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- if eq (include "lictor.profile" .) "root" -}}
{{- /* What writing /etc and installing packages takes, and ending what a script left running as another user. */ -}}
{{- $context = dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" false "capabilities" (dict "drop" (list "ALL") "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER" "FSETID" "KILL" "SETGID" "SETUID")) -}}
{{- end -}}
{{- include "lictor.without" (mergeOverwrite $context (deepCopy .Values.containerSecurityContext)) -}}
{{- end -}}

{{- define "lictor.podSecurity" -}}
{{- $context := dict "runAsNonRoot" true "runAsUser" 10001 "fsGroup" 10001 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if .Values.platformChoosesUser }}{{ $context = omit $context "runAsUser" "fsGroup" "fsGroupChangePolicy" }}{{ end -}}
{{- if eq (include "lictor.profile" .) "root" -}}
{{- if .Values.platformChoosesUser }}{{ fail "platformChoosesUser is for the profile restricted: the user of the profile root is 0" }}{{ end -}}
{{- $context = dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- include "lictor.without" (mergeOverwrite $context (deepCopy .Values.podSecurityContext)) -}}
{{- end -}}

{{/* Leaves out what is null: that is how one takes a field away. */}}
{{- define "lictor.without" -}}
{{- $left := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $left $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $left -}}
{{- end -}}

{{- define "lictor.probe" -}}
httpGet:
  path: {{ .probe.path }}
  port: http
initialDelaySeconds: {{ int64 .probe.initialDelaySeconds }}
periodSeconds: {{ int64 .probe.periodSeconds }}
timeoutSeconds: {{ int64 .probe.timeoutSeconds }}
failureThreshold: {{ int64 .failures }}
{{- end -}}

{{- define "lictor.resources" -}}
{{- $own := dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" "512Mi") -}}
{{- with .Values.cpu }}{{ $_ := set $own.requests "cpu" (toString .) }}{{ end -}}
{{- with .Values.memory -}}
{{- $mebibytes := printf "%dMi" (int64 .) -}}
{{- $_ := set $own.requests "memory" $mebibytes -}}
{{- $_ := set $own.limits "memory" $mebibytes -}}
{{- end -}}
{{- toYaml (.Values.resources | default $own) -}}
{{- end -}}

{{- define "lictor.ownEnv" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- if .Values.agentNamePrefix }}
- name: LICTOR_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: LICTOR_AGENT_NAME
  value: {{ printf "%s$(LICTOR_POD_NAME)" .Values.agentNamePrefix | quote }}
{{- else }}
- name: LICTOR_AGENT_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- /* These two are in the image's environment, which goes before agent.yaml. The agent makes the directory itself, so that it owns
it: that of a volume belongs to root. */}}
- name: LICTOR_AGENT_STATE_DIR
  value: /var/lib/lictor-agent/state
- name: LICTOR_AGENT_HTTP_LISTEN
  value: {{ printf "%s:%d" .Values.http.address (int64 .Values.http.port) | quote }}
{{- $kerberos := $settings.kerberos | default dict }}
{{- if include "lictor.hasKrb5File" . }}
- name: KRB5_CONFIG
  value: /etc/lictor/krb5/krb5.conf
{{- else if omit $kerberos "keytabs" "caches" "krb5_conf" }}
- name: KRB5_CONFIG
  value: /var/lib/lictor-agent/state/krb5.conf
{{- end }}
{{- end -}}

{{- define "lictor.env" -}}
{{- $own := include "lictor.ownEnv" . -}}
{{ $own }}
{{- $names := include "lictor.namesIn" (dict "list" $own "key" "name") | fromYamlArray }}
{{- with include "lictor.added" (dict "own" $names "given" (include "lictor.variables" . | fromYamlArray) "key" "name" "value" "extraEnv (or custom_envs)") | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Mounts and volumes that users add. */}}
{{- define "lictor.userMounts" -}}
{{- toYaml (concat (.Values.extraVolumeMounts | default list) (.Values.custom_mounts | default list)) -}}
{{- end -}}
{{- define "lictor.userVolumes" -}}
{{- toYaml (concat (.Values.extraVolumes | default list) (.Values.custom_volumes | default list)) -}}
{{- end -}}

{{/* Whether a user's mount takes the place of our /tmp, and (when it brings a volume of that name) of its volume. */}}
{{- define "lictor.hasOtherTmp" -}}
{{- range include "lictor.userMounts" . | fromYamlArray }}{{ if eq (trimSuffix "/" .mountPath) "/tmp" }}true{{ end }}{{ end -}}
{{- end -}}
{{- define "lictor.hasOtherTmpVolume" -}}
{{- if include "lictor.hasOtherTmp" . -}}
{{- range include "lictor.userVolumes" . | fromYamlArray }}{{ if eq .name "tmp" }}true{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "lictor.ownMounts" -}}
- name: state
  mountPath: /var/lib/lictor-agent
{{- if not (include "lictor.hasOtherTmp" .) }}
- name: tmp
  mountPath: /tmp
{{- end }}
- name: settings
  mountPath: /etc/lictor/agent
  readOnly: true
{{- if include "lictor.joinSecret" . }}
- name: join
  mountPath: /etc/lictor/join
  readOnly: true
{{- end }}
{{- if include "lictor.hasKrb5File" . }}
- name: krb5
  mountPath: /etc/lictor/krb5
  readOnly: true
{{- end }}
{{- range include "lictor.keytabSources" . | fromYamlArray }}
- name: {{ .volume }}
  mountPath: {{ .path | quote }}
  readOnly: true
{{- end }}
{{- if include "lictor.bootstrapSource" . }}
- name: bootstrap
  mountPath: /etc/lictor/bootstrap
  readOnly: true
{{- end }}
{{- if include "lictor.proxyPassword" . | or .Values.proxy.existingSecret }}
- name: proxy
  mountPath: /etc/lictor/proxy
  readOnly: true
{{- end }}
{{- range include "lictor.authorities" . | fromYamlArray }}
- name: {{ .volume }}
  mountPath: {{ .path | quote }}
  readOnly: true
{{- end }}
{{- if include "lictor.policyFile" . }}
- name: policy
  mountPath: /etc/lictor/policy
  readOnly: true
{{- end }}
{{- end -}}

{{- define "lictor.mounts" -}}
{{- $own := include "lictor.ownMounts" . -}}
{{ $own }}
{{- $paths := include "lictor.namesIn" (dict "list" $own "key" "mountPath") | fromYamlArray }}
{{- with include "lictor.added" (dict "own" $paths "given" (include "lictor.userMounts" . | fromYamlArray) "key" "mountPath" "value" "extraVolumeMounts (or custom_mounts)") | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets are for the pod's group only; a keytab is as good as a password. */}}
{{- define "lictor.ownVolumes" -}}
{{- $name := include "lictor.fullname" . -}}
{{- if .Values.persistence.existingClaim }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim | quote }}
{{- else if eq (include "lictor.workload" .) "deployment" }}
- name: state
  emptyDir:
    sizeLimit: {{ .Values.ephemeralStateSize | quote }}
{{- end }}
{{- if not (include "lictor.hasOtherTmpVolume" .) }}
- name: tmp
  emptyDir:
    {{- with .Values.tmp.medium }}
    medium: {{ . }}
    {{- end }}
    sizeLimit: {{ .Values.tmp.size | quote }}
{{- end }}
- name: settings
  configMap:
    name: {{ $name | quote }}
{{- with include "lictor.joinSecret" . | fromYaml }}
- name: join
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: token
{{- end }}
{{- if include "lictor.hasKrb5File" . }}
- name: krb5
  configMap:
    name: {{ .Values.kerberos.existingConfigMap | default (printf "%s-krb5" $name) | quote }}
    {{- if and .Values.kerberos.existingConfigMap (ne .Values.kerberos.key "krb5.conf") }}
    items:
      - key: {{ .Values.kerberos.key | quote }}
        path: krb5.conf
    {{- end }}
{{- end }}
{{- range include "lictor.keytabSources" . | fromYamlArray }}
- name: {{ .volume }}
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
{{- end }}
{{- with include "lictor.bootstrapSource" . | fromYaml }}
- name: bootstrap
  {{- if eq .kind "secret" }}
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .name | quote }}
  {{- end }}
    items:
      - key: {{ .key | quote }}
        path: init.sh
{{- end }}
{{- if include "lictor.proxyPassword" . | or .Values.proxy.existingSecret }}
- name: proxy
  secret:
    secretName: {{ .Values.proxy.existingSecret | default (printf "%s-proxy" $name) | quote }}
    defaultMode: 0440
    items:
      - key: {{ ternary .Values.proxy.key "password" (not (empty .Values.proxy.existingSecret)) | quote }}
        path: password
{{- end }}
{{- range include "lictor.authorities" . | fromYamlArray }}
- name: {{ .volume }}
  {{- if eq .kind "secret" }}
  secret:
    secretName: {{ .name | quote }}
  {{- else }}
  configMap:
    name: {{ .name | quote }}
  {{- end }}
    defaultMode: 0444
{{- end }}
{{- if include "lictor.policyFile" . }}
- name: policy
  configMap:
    name: {{ .Values.policy.existingConfigMap | default (printf "%s-policy" $name) | quote }}
{{- end }}
{{- end -}}

{{- define "lictor.volumes" -}}
{{- $own := include "lictor.ownVolumes" . -}}
{{ $own }}
{{- /* That of a claim is not in the list. */}}
{{- $names := append (include "lictor.namesIn" (dict "list" $own "key" "name") | fromYamlArray) "state" }}
{{- with include "lictor.added" (dict "own" $names "given" (include "lictor.userVolumes" . | fromYamlArray) "key" "name" "value" "extraVolumes (or custom_volumes)") | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
What pods must be started anew for: the agent reads its settings, the authorities and the script at its start. krb5.conf, keytabs,
policy, join token and the proxy's password are read when they are needed. The script may hold passwords and annotations are read by
more people than Secrets: what stands here of it is the outcome of a slow one-way function.
*/}}
{{- define "lictor.checksums" -}}
checksum/settings: {{ include "lictor.settings" . | sha256sum }}
{{- with include "lictor.caBundle" . }}
checksum/ca: {{ sha256sum . }}
{{- end }}
{{- with include "lictor.script" . }}
checksum/bootstrap: {{ derivePassword 1 "maximum" . (include "lictor.fullname" $) "bootstrap" | sha256sum | trunc 32 | quote }}
{{- end }}
{{- end -}}

{{- define "lictor.podAnnotations" -}}
{{- $values := .Values -}}
{{- toYaml (mergeOverwrite (dict) ($values.commonAnnotations | default dict) ($values.annotations | default dict) ($values.delegateAnnotations | default dict) ($values.podAnnotations | default dict) (include "lictor.checksums" . | fromYaml)) -}}
{{- end -}}

{{- define "lictor.podLabels" -}}
{{- $values := .Values -}}
{{- toYaml (mergeOverwrite (dict) ($values.delegateLabels | default dict) ($values.delegatePodLabels | default dict) ($values.podLabels | default dict) (include "lictor.labels" . | fromYaml)) -}}
{{- end -}}

{{- define "lictor.spread" -}}
{{- $selector := dict "matchLabels" (include "lictor.selector" . | fromYaml) -}}
{{- $constraints := .Values.topologySpreadConstraints -}}
{{- if kindIs "invalid" $constraints -}}
{{- $constraints = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") (dict "maxSkew" 1 "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- $whole := list -}}
{{- range $constraints }}{{ $whole = append $whole (merge (deepCopy .) (dict "labelSelector" $selector)) }}{{ end -}}
{{- if $whole }}{{ toYaml $whole }}{{ end -}}
{{- end -}}

{{- define "lictor.pod" -}}
metadata:
  labels:
    {{- include "lictor.podLabels" . | nindent 4 }}
  annotations:
    {{- include "lictor.podAnnotations" . | nindent 4 }}
spec:
  serviceAccountName: {{ include "lictor.serviceAccount" . | quote }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
  # Variables of services would only be mistaken for settings.
  enableServiceLinks: false
  {{- $pull := .Values.imagePullSecrets }}
  {{- with .Values.imagePullSecret }}{{ $pull = append $pull . | uniq }}{{ end }}
  {{- with $pull }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "lictor.podSecurity" . | nindent 4 }}
  # drain_grace, and what the agent may need after it.
  terminationGracePeriodSeconds: {{ include "lictor.terminationGracePeriod" . }}
  {{- with concat (.Values.initContainers | default list) (.Values.custom_init_containers | default list) }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: agent
      image: {{ include "lictor.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
      args: ["run", "--config", "/etc/lictor/agent/agent.yaml"]
      securityContext:
        {{- include "lictor.containerSecurity" . | nindent 8 }}
      env:
        {{- include "lictor.env" . | trim | nindent 8 }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ int64 .Values.http.port }}
          protocol: TCP
      startupProbe:
        {{- include "lictor.probe" (dict "probe" .Values.startupProbe "failures" (include "lictor.startupFailures" .)) | nindent 8 }}
      livenessProbe:
        {{- include "lictor.probe" (dict "probe" .Values.livenessProbe "failures" .Values.livenessProbe.failureThreshold) | nindent 8 }}
      readinessProbe:
        {{- include "lictor.probe" (dict "probe" .Values.readinessProbe "failures" .Values.readinessProbe.failureThreshold) | nindent 8 }}
      resources:
        {{- include "lictor.resources" . | nindent 8 }}
      volumeMounts:
        {{- include "lictor.mounts" . | trim | nindent 8 }}
    {{- with concat (.Values.extraContainers | default list) (.Values.custom_containers | default list) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "lictor.volumes" . | trim | nindent 4 }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . | quote }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "lictor.spread" . }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . | quote }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
{{- end -}}
