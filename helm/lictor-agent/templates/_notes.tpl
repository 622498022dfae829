{{/* What was given and does nothing, with the reason: a line each. A test compares this with the names of Harness's chart. */}}
{{- define "lictor.ignored" -}}
{{- $v := .Values -}}
{{- $reasons := list
  (list "accountId" $v.accountId "there are no accounts here: an agent belongs to the control plane that made its join token")
  (list "delegateType" $v.delegateType "there is one type of agent")
  (list "deployMode" $v.deployMode "there is one mode of deployment")
  (list "nextGen" $v.nextGen "there is one generation")
  (list "javaOpts" $v.javaOpts "there is no Java here")
  (list "k8sPermissionsType" $v.k8sPermissionsType "the agent never talks to Kubernetes, so that it gets no rights in the cluster")
  (list "destinationCaPath" $v.destinationCaPath "it says where certificates go in containers of builds, and there are no builds here")
  (list "mTLS.secretName" $v.mTLS.secretName "the agent makes its own key and gets its certificate with the join token; mTLS is always on")
  (list "service.port" $v.service.port "nothing listens there; /live, /ready and /metrics are on http.port")
  (list "service.type" $v.service.type "the service has no address, because nobody connects to an agent but for metrics")
  (list "ccm.visibility" $v.ccm.visibility "there is no management of cloud costs")
  (list "upgrader" $v.upgrader "agents are upgraded by their image, with helm upgrade")
  (list "upgraderCustomCa.secretName" $v.upgraderCustomCa.secretName "there is no upgrader")
  (list "delegatePodSecurityContext" $v.delegatePodSecurityContext "the profile says what pods may do; podSecurityContext changes it")
  (list "delegateSecurityContext" $v.delegateSecurityContext "the profile says what the container may do; containerSecurityContext changes it")
  (list "shared_certificates.certs_path" $v.shared_certificates.certs_path "certificates are at /etc/lictor/ca")
  (list "shared_certificates.ci_mount_targets" $v.shared_certificates.ci_mount_targets "there are no containers of builds here")
-}}
{{- range $reasons -}}
{{- if index . 1 }}
  {{ index . 0 }}: {{ index . 2 }}
{{- end -}}
{{- end -}}
{{- if include "lictor.isHarnessImage" $v.delegateDockerImage }}
  delegateDockerImage: {{ $v.delegateDockerImage }} is named as Harness's delegate is; {{ include "lictor.image" . }} is used (image.repository, image.tag)
{{- end -}}
{{- if and $v.profile (not (kindIs "invalid" $v.securityContext.runAsRoot)) (ne (eq $v.profile "root") $v.securityContext.runAsRoot) }}
  securityContext.runAsRoot: profile goes before it
{{- end -}}
{{- if $v.resources }}
{{- range list "cpu" "memory" }}
{{- if get $v . }}
  {{ . }}: resources goes before it
{{- end }}
{{- end }}
{{- end -}}
{{- $defaults := include "lictor.defaults" . | fromJson -}}
{{- if eq (include "lictor.workload" .) "deployment" }}
{{- range list "size" "storageClassName" "accessModes" "annotations" "whenDeleted" "whenScaled" }}
{{- if ne (toJson (get $v.persistence .)) (toJson (get $defaults.persistence .)) }}
  persistence.{{ . }}: there is no volume per pod (persistence.enabled, persistence.existingClaim)
{{- end }}
{{- end }}
{{- if or (eq $v.deploymentStrategy "Recreate") $v.persistence.existingClaim }}
{{- range list "maxSurge" "maxUnavailable" }}
{{- if not (kindIs "invalid" (get $v.rollingUpdate .)) }}
  rollingUpdate.{{ . }}: the strategy is Recreate
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- if and (or (eq (include "lictor.workload" .) "statefulset") $v.persistence.existingClaim) (ne (toString $v.ephemeralStateSize) (toString $defaults.ephemeralStateSize)) }}
  ephemeralStateSize: the state is on a volume of its own
{{- end -}}
{{- if and $v.autoscaling.enabled (ne (int64 $v.replicas) (int64 $defaults.replicas)) }}
  replicas: autoscaling sets the number of pods
{{- end -}}
{{- if not $v.autoscaling.enabled }}
{{- range list "targetSlotsUsed" "targetMemoryUtilizationPercentage" }}
{{- if get $v.autoscaling . }}
  autoscaling.{{ . }}: autoscaling.enabled is false
{{- end }}
{{- end }}
{{- if $v.autoscaling.backlog.targetPerPod }}
  autoscaling.backlog.targetPerPod: autoscaling.enabled is false
{{- end }}
{{- end -}}
{{- if include "lictor.hasOtherTmp" . }}
{{- range list "medium" "size" }}
{{- if ne (toString (get $v.tmp .)) (toString (get $defaults.tmp .)) }}
  tmp.{{ . }}: another volume is mounted at /tmp
{{- end }}
{{- end }}
{{- end -}}
{{- if and (eq (include "lictor.workload" .) "statefulset") (not (kindIs "invalid" $v.rollingUpdate.maxSurge)) }}
  rollingUpdate.maxSurge: a StatefulSet replaces pods and makes no further ones; persistence.enabled=false gives a Deployment
{{- end -}}
{{- if and (eq (include "lictor.workload" .) "statefulset") (eq $v.deploymentStrategy "Recreate") }}
  deploymentStrategy: a StatefulSet never has two pods of one volume, which is what Recreate is for
{{- end -}}
{{- if and (eq (include "lictor.workload" .) "deployment") (not $v.persistence.existingClaim) (eq (toString $v.podManagementPolicy) "OrderedReady") }}
  podManagementPolicy: it is for a StatefulSet
{{- end -}}
{{- end -}}
