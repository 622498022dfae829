{{/* Made of values.yaml by the tests of the charts. */}}
{{- define "lictor.defaults" -}}
{
 "profile": "",
 "controlPlane": {
  "endpoint": ""
 },
 "managerEndpoint": "",
 "joinToken": {
  "value": "",
  "existingSecret": "",
  "key": "token"
 },
 "delegateToken": "",
 "existingDelegateToken": "",
 "delegateName": "",
 "fullnameOverride": "",
 "agentNamePrefix": "",
 "tags": [],
 "description": "",
 "config": {},
 "image": {
  "registry": "",
  "repository": "lictor-agent",
  "tag": "",
  "digest": "",
  "pullPolicy": "IfNotPresent"
 },
 "delegateDockerImage": "",
 "imagePullSecrets": [],
 "imagePullSecret": "",
 "replicas": 1,
 "persistence": {
  "enabled": true,
  "size": "2Gi",
  "storageClassName": "",
  "accessModes": [
   "ReadWriteOnce"
  ],
  "annotations": {},
  "existingClaim": "",
  "whenDeleted": "Retain",
  "whenScaled": "Retain"
 },
 "ephemeralStateSize": "2Gi",
 "kerberos": {
  "krb5Conf": "",
  "existingConfigMap": "",
  "key": "krb5.conf",
  "defaultRealm": "",
  "realms": {},
  "domainRealm": {},
  "dnsLookupKdc": null,
  "rdns": null,
  "forwardable": null,
  "ticketLifetime": "",
  "renewLifetime": "",
  "udpPreferenceLimit": null,
  "keytabs": {
   "existingSecrets": [],
   "inline": {}
  }
 },
 "bootstrap": {
  "script": "",
  "existingSecret": "",
  "existingConfigMap": "",
  "key": "init.sh"
 },
 "initScript": "",
 "proxy": {
  "url": "",
  "username": "",
  "password": "",
  "existingSecret": "",
  "key": "password",
  "noProxy": []
 },
 "proxyHost": "",
 "proxyPort": "",
 "proxyScheme": "",
 "proxyUser": "",
 "proxyPassword": "",
 "noProxy": "",
 "ca": {
  "bundle": "",
  "existingSecrets": [],
  "existingConfigMaps": []
 },
 "delegateCustomCa": {
  "secretName": null
 },
 "shared_certificates": {
  "ca_bundle": null,
  "certs_path": null,
  "ci_mount_targets": null
 },
 "policy": {
  "rules": {},
  "existingConfigMap": "",
  "key": "policy.yaml"
 },
 "pollForTasks": "",
 "http": {
  "port": 3460,
  "address": "0.0.0.0"
 },
 "resources": {},
 "cpu": null,
 "memory": null,
 "tmp": {
  "medium": "Memory",
  "size": "64Mi"
 },
 "terminationGracePeriodSeconds": null,
 "startupProbe": {
  "path": "/live",
  "initialDelaySeconds": 0,
  "periodSeconds": 5,
  "timeoutSeconds": 3,
  "failureThreshold": null
 },
 "livenessProbe": {
  "path": "/live",
  "initialDelaySeconds": 0,
  "periodSeconds": 20,
  "timeoutSeconds": 3,
  "failureThreshold": 3
 },
 "readinessProbe": {
  "path": "/ready",
  "initialDelaySeconds": 0,
  "periodSeconds": 5,
  "timeoutSeconds": 3,
  "failureThreshold": 2
 },
 "minReadySeconds": 5,
 "deploymentStrategy": "RollingUpdate",
 "rollingUpdate": {
  "maxSurge": null,
  "maxUnavailable": null
 },
 "podManagementPolicy": "Parallel",
 "revisionHistoryLimit": 5,
 "podDisruptionBudget": {
  "enabled": true,
  "maxUnavailable": 1,
  "minAvailable": null
 },
 "networkPolicy": {
  "enabled": true,
  "egress": {
   "dnsPorts": [
    53,
    5353
   ],
   "controlPlane": [],
   "kdc": [],
   "kdcPorts": [
    88
   ],
   "winrm": [],
   "winrmPorts": [
    5985,
    5986
   ],
   "proxy": [],
   "aws": false,
   "instanceMetadata": false,
   "packages": null,
   "extra": []
  },
  "ingress": {
   "from": [],
   "extra": []
  }
 },
 "autoscaling": {
  "enabled": false,
  "minReplicas": 1,
  "maxReplicas": 10,
  "targetCPUUtilizationPercentage": null,
  "targetMemoryUtilizationPercentage": null,
  "targetSlotsUsed": null,
  "backlog": {
   "targetPerPod": null,
   "metric": "control_plane_tasks_queued",
   "matchLabels": {}
  },
  "metrics": [],
  "behavior": {
   "scaleDown": {
    "stabilizationWindowSeconds": 300,
    "policies": [
     {
      "type": "Pods",
      "value": 1,
      "periodSeconds": 60
     }
    ]
   }
  }
 },
 "metrics": {
  "serviceMonitor": {
   "enabled": false,
   "labels": {},
   "interval": "30s"
  },
  "podMonitor": {
   "enabled": false,
   "labels": {},
   "interval": "30s"
  }
 },
 "serviceAccount": {
  "create": true,
  "name": "",
  "annotations": {},
  "automount": false
 },
 "platformChoosesUser": false,
 "podSecurityContext": {},
 "containerSecurityContext": {},
 "securityContext": {
  "runAsRoot": null
 },
 "commonLabels": {},
 "commonAnnotations": {},
 "podLabels": {},
 "podAnnotations": {},
 "annotations": {},
 "delegateAnnotations": {},
 "delegateLabels": {},
 "delegatePodLabels": {},
 "additionalLabels": {},
 "nodeSelector": {},
 "tolerations": [],
 "affinity": {},
 "topologySpreadConstraints": null,
 "priorityClassName": "",
 "schedulerName": "",
 "runtimeClassName": "",
 "dnsPolicy": "",
 "dnsConfig": {},
 "hostAliases": [],
 "extraEnv": [],
 "extraEnvFrom": [],
 "extraVolumes": [],
 "extraVolumeMounts": [],
 "extraContainers": [],
 "initContainers": [],
 "custom_envs": null,
 "custom_volumes": null,
 "custom_mounts": null,
 "custom_containers": null,
 "custom_init_containers": null,
 "accountId": "",
 "delegateType": "",
 "deployMode": "",
 "nextGen": null,
 "javaOpts": "",
 "k8sPermissionsType": "",
 "destinationCaPath": null,
 "mTLS": {
  "secretName": ""
 },
 "service": {
  "port": null,
  "type": null
 },
 "ccm": {
  "visibility": null
 },
 "upgrader": {},
 "upgraderCustomCa": {
  "secretName": null
 },
 "delegatePodSecurityContext": {},
 "delegateSecurityContext": {}
}
{{- end -}}
