{{/* Made of values.yaml by the tests of the charts. */}}
{{- define "lictorControlPlane.defaults" -}}
{
 "fullnameOverride": "",
 "names": [],
 "clusterDomain": "cluster.local",
 "masterKey": {
  "existingSecret": "",
  "key": "master-key"
 },
 "config": {},
 "image": {
  "registry": "",
  "repository": "lictor-control-plane",
  "tag": "",
  "digest": "",
  "pullPolicy": "IfNotPresent"
 },
 "imagePullSecrets": [],
 "persistence": {
  "enabled": true,
  "size": "30Gi",
  "storageClassName": "",
  "accessModes": [
   "ReadWriteOnce"
  ],
  "annotations": {},
  "existingClaim": "",
  "whenDeleted": "Retain"
 },
 "service": {
  "type": "ClusterIP",
  "port": 7443,
  "nodePort": null,
  "annotations": {},
  "loadBalancerClass": "",
  "loadBalancerSourceRanges": [],
  "externalTrafficPolicy": ""
 },
 "grpc": {
  "port": 7443,
  "address": "0.0.0.0"
 },
 "http": {
  "port": 7480,
  "address": "0.0.0.0"
 },
 "resources": {
  "requests": {
   "cpu": "100m",
   "memory": "128Mi"
  },
  "limits": {
   "memory": "1Gi"
  }
 },
 "terminationGracePeriodSeconds": 30,
 "startupProbe": {
  "periodSeconds": 5,
  "timeoutSeconds": 3,
  "failureThreshold": 120
 },
 "livenessProbe": {
  "periodSeconds": 20,
  "timeoutSeconds": 3,
  "failureThreshold": 3
 },
 "readinessProbe": {
  "periodSeconds": 5,
  "timeoutSeconds": 3,
  "failureThreshold": 2
 },
 "networkPolicy": {
  "enabled": true,
  "ingress": {
   "from": [],
   "metricsFrom": [],
   "extra": []
  },
  "egress": {
   "extra": []
  }
 },
 "metrics": {
  "serviceMonitor": {
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
 "commonLabels": {},
 "commonAnnotations": {},
 "podLabels": {},
 "podAnnotations": {},
 "nodeSelector": {},
 "tolerations": [],
 "affinity": {},
 "priorityClassName": "",
 "extraEnv": [],
 "extraEnvFrom": [],
 "extraVolumes": [],
 "extraVolumeMounts": [],
 "extraContainers": [],
 "initContainers": []
}
{{- end -}}
