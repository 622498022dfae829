"""Values for the agent's chart that must render."""

import base64

# Whoever finds it outside of a Secret has found a leak.
MARKER = "MARKED-SECRET-7Q2"

BASIC = {"controlPlane": {"endpoint": "https://lictor.example:7443"}, "joinToken": {"existingSecret": "join"}}
HARNESS = {"managerEndpoint": "https://lictor.example", "delegateToken": f"{MARKER}-token"}
KRB5_CONF = """[libdefaults]
    default_realm = CORP.EXAMPLE
[realms]
    CORP.EXAMPLE = {
        kdc = dc1.corp.example
    }
"""
# An authority of nobody; its key was never kept.
PEM = """-----BEGIN CERTIFICATE-----
MIIBlDCCATmgAwIBAgIUPRN5bcJAfLcJ5zfe6on34mDDrpEwCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTQXV0aG9yaXR5IG9mIGEgdGVzdDAgFw0yNjExMjEyMTQ2MzRa
GA8yMTI2MTAyODIxNDYzNFowHjEcMBoGA1UEAwwTQXV0aG9yaXR5IG9mIGEgdGVz
dDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAQE7B8QuwPxY5dnUWQJFjIWt21k
797h+M5pxtPUFPnBzB4m1hnUgosvogT1IDgpiEGEN/e0BZvJDZRR9jjlhN6jUzBR
MB0GA1UdDgQWBBSXHysSqbbCBEx+cy4yLv4W4ks79TAfBgNVHSMEGDAWgBSXHysS
qbbCBEx+cy4yLv4W4ks79TAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kA
MEYCIQCcrNG6w1toRhHPTPBjYPIx7VCF6jtfUO/a5PBEHM/jmAIhANcjxDPHvzaz
CkjffkkpGI+tqcBSS3J7Y2bQhtsbi0Oo
-----END CERTIFICATE-----
"""
# A keytab without keys: its version and nothing else.
KEYTAB = base64.b64encode(b"\x05\x02").decode()
SCRIPT = f"#!/bin/bash\necho '{MARKER}-password' | kinit svc@CORP.EXAMPLE\n"

# Objects that users bring, by name, with what is in them.
OUTSIDE = {
    "join": {"token": "x", "other": "x"},
    "harness-join": {"DELEGATE_TOKEN": "x"},
    "krb5": {"krb5.conf": KRB5_CONF, "corp.conf": KRB5_CONF},
    "keytabs-a": {"a.keytab": ""},
    "keytabs-b": {"b.keytab": "", "a.keytab": "other"},
    "keytabs.c": {"a.keytab": "third"},
    "123": {"1e3": KRB5_CONF},
    "12345": {"1e3": "x"},
    "scripts": {"init.sh": "true\n", "start": "true\n"},
    "proxy": {"password": "x", "secret": "x"},
    "authorities": {"ca.crt": PEM},
    "more-authorities": {"more.pem": PEM, "ca.crt": PEM},
    "policy": {"policy.yaml": "hosts:\n  allow: [.corp.example]\n", "own.toml": '[hosts]\nallow = [".corp.example"]\n'},
}


def on(base, **values):
    return {**base, **values}


GOOD = {
    "smallest, as Harness users write it": HARNESS,
    "smallest, with names of our own": BASIC,
    "no volume": on(BASIC, persistence={"enabled": False}, replicas=3),
    "an existing claim": on(BASIC, persistence={"existingClaim": "kept"}),
    "volumes of a class": on(
        BASIC,
        replicas=3,
        persistence={
            "size": "10Gi",
            "storageClassName": "fast",
            "accessModes": ["ReadWriteOncePod"],
            "annotations": {"a": "b"},
            "whenDeleted": "Delete",
            "whenScaled": "Delete",
        },
        podManagementPolicy="OrderedReady",
        rollingUpdate={"maxUnavailable": 2},
    ),
    "krb5.conf from a value, keytabs from Secrets": on(
        BASIC, kerberos={"krb5Conf": KRB5_CONF, "keytabs": {"existingSecrets": ["keytabs-a", "keytabs-b"]}}
    ),
    "krb5.conf from a ConfigMap": on(BASIC, kerberos={"existingConfigMap": "krb5"}),
    "krb5.conf under another key, keytab from a value": on(
        BASIC,
        kerberos={"existingConfigMap": "krb5", "key": "corp.conf", "keytabs": {"inline": {"svc.keytab": KEYTAB}}},
    ),
    "declared realms": on(
        BASIC,
        kerberos={
            "defaultRealm": "CORP.EXAMPLE",
            "realms": {
                "CORP.EXAMPLE": {
                    "kdc": ["dc1.corp.example", "dc2.corp.example:8888"],
                    "adminServer": "dc1.corp.example",
                    "kpasswdServer": "dc1.corp.example:464",
                    "primaryKdc": "dc1.corp.example",
                    "defaultDomain": "corp.example",
                },
                "LAB.EXAMPLE": {"kdc": ["dc.lab.example"]},
            },
            "domainRealm": {".corp.example": "CORP.EXAMPLE"},
            "dnsLookupKdc": False,
            "rdns": False,
            "forwardable": True,
            "ticketLifetime": "10h",
            "renewLifetime": "7d",
            "udpPreferenceLimit": 1,
            "keytabs": {"existingSecrets": ["keytabs-a"]},
        },
    ),
    "a script from a value, as root": on(HARNESS, initScript=SCRIPT, profile="root"),
    "a script from a Secret": on(BASIC, bootstrap={"existingSecret": "scripts"}),
    "a script from a ConfigMap, that must succeed": on(
        BASIC,
        bootstrap={"existingConfigMap": "scripts", "key": "start"},
        config={"bootstrap": {"policy": "fail", "timeout": "20m"}},
    ),
    "a script in a variable": on(BASIC, extraEnv=[{"name": "INIT_SCRIPT", "value": "true"}], profile="root"),
    "a startup probe that asks for readiness": on(
        BASIC, bootstrap={"script": "true"}, startupProbe={"path": "/ready", "periodSeconds": 7}
    ),
    "a proxy of our own names": on(
        BASIC,
        proxy={
            "url": "http://proxy.example:3128",
            "username": "svc",
            "existingSecret": "proxy",
            "key": "secret",
            "noProxy": ["corp.example", "10.0.0.0/8"],
        },
    ),
    "a proxy of Harness's names": on(
        HARNESS,
        proxyHost="proxy.example",
        proxyPort="8080",
        proxyScheme="https",
        proxyUser="svc",
        proxyPassword=f"{MARKER}-proxy",
        noProxy="corp.example, .svc",
    ),
    "a proxy without a port": on(BASIC, proxy={"url": "https://proxy.example"}),
    "authorities from everywhere": on(
        BASIC,
        ca={"bundle": PEM, "existingSecrets": ["authorities"], "existingConfigMaps": ["more-authorities"]},
        delegateCustomCa={"secretName": "authorities"},
    ),
    "authorities of Harness's names": on(
        HARNESS, shared_certificates={"ca_bundle": PEM, "certs_path": "/shared/ca.bundle"}
    ),
    "keytabs of one name": on(
        BASIC,
        kerberos={
            "keytabs": {"existingSecrets": ["keytabs-a", "keytabs-b", "keytabs.c"], "inline": {"a.keytab": KEYTAB}}
        },
    ),
    "authorities of one Secret": on(BASIC, ca={"existingSecrets": ["authorities"]}),
    "authorities beside Harness's directory": on(
        BASIC,
        ca={"existingSecrets": ["authorities"], "existingConfigMaps": ["authorities"]},
        config={"ca_files": ["/etc/lictor/more"]},
        extraVolumes=[{"name": "v", "configMap": {"name": "more-authorities"}}],
        extraVolumeMounts=[
            {"name": "v", "mountPath": "/opt/harness-delegate/ca-bundle/"},
            {"name": "v", "mountPath": "/etc/lictor/more"},
        ],
    ),
    "a proxy in variables of Harness": on(
        HARNESS, custom_envs=[{"name": "PROXY_HOST", "value": "p.example"}, {"name": "PROXY_PORT", "value": "3129"}]
    ),
    "a proxy in a variable of everybody": on(
        BASIC, extraEnv=[{"name": "HTTPS_PROXY", "value": "http://svc:x@p.example:3130/"}]
    ),
    "a proxy in a Secret, let through by hand": on(
        BASIC,
        extraEnv=[{"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "p", "key": "url"}}}],
        networkPolicy={"egress": {"extra": [{"ports": [{"port": 3131, "protocol": "TCP"}]}]}},
    ),
    "a proxy without a scheme": on(BASIC, config={"proxy": {"url": "p.example:3132"}}),
    "traces": on(
        BASIC, config={"telemetry": {"otlp_endpoint": "http://collector.example:14317", "sample_ratio": 0.5}}
    ),
    "traces by a variable": on(
        BASIC, extraEnv=[{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.example:14318"}]
    ),
    "another /tmp": on(
        BASIC,
        custom_volumes=[{"name": "tmp", "emptyDir": {"sizeLimit": "9Gi"}}],
        custom_mounts=[{"name": "tmp", "mountPath": "/tmp/"}],
    ),
    "variables, volumes and mounts given twice": on(
        BASIC,
        agentNamePrefix="b-",
        extraEnv=[{"name": "A", "value": "b"}, {"name": "POD_NAME", "value": "mine"}],
        custom_envs=[{"name": "A", "value": "b"}],
        extraVolumes=[{"name": "v", "emptyDir": {}}],
        custom_volumes=[{"name": "v", "emptyDir": {}}],
        extraVolumeMounts=[{"name": "v", "mountPath": "/v"}],
        custom_mounts=[{"name": "v", "mountPath": "/v"}],
    ),
    "resources, and copied numbers": on(HARNESS, resources={"limits": {"memory": "1Gi"}}, cpu=1, memory=2048),
    "no surge": on(BASIC, persistence={"enabled": False}, rollingUpdate={"maxSurge": "0%"}),
    "an own profile over a copied one": on(HARNESS, profile="restricted", securityContext={"runAsRoot": True}),
    "a platform that chooses the uid": on(BASIC, platformChoosesUser=True),
    "names that look like numbers": on(
        BASIC,
        joinToken={"existingSecret": "12345", "key": "1e3"},
        imagePullSecret="12345",
        imagePullSecrets=["1e3"],
        image={"registry": "1", "repository": "2", "tag": "3"},
        priorityClassName="true",
        schedulerName="1",
        runtimeClassName="0x1",
        persistence={"storageClassName": "1e3"},
        kerberos={"existingConfigMap": "123", "key": "1e3", "keytabs": {"inline": {"1": KEYTAB}}},
        serviceAccount={"name": "1"},
        commonLabels={"1": "2"},
        podAnnotations={"y": "1"},
        nodeSelector={"a": "1"},
        description="1e3",
    ),
    "sections that are empty": {
        **HARNESS,
        **dict.fromkeys(
            [
                "rollingUpdate",
                "service",
                "autoscaling",
                "startupProbe",
                "livenessProbe",
                "readinessProbe",
                "serviceAccount",
                "image",
                "mTLS",
                "securityContext",
                "shared_certificates",
                "delegateCustomCa",
                "upgraderCustomCa",
                "ccm",
                "ca",
                "persistence",
                "kerberos",
                "bootstrap",
                "proxy",
                "policy",
                "networkPolicy",
                "podDisruptionBudget",
                "metrics",
                "controlPlane",
                "joinToken",
                "http",
                "tmp",
                "config",
                "podSecurityContext",
                "containerSecurityContext",
                "replicas",
                "minReadySeconds",
                "deploymentStrategy",
                "profile",
                "resources",
                "hostAliases",
                "tags",
            ]
        ),
    },
    "values that are empty": {
        **HARNESS,
        "image": {"registry": None, "repository": None, "tag": None, "pullPolicy": None},
        "ca": {"existingSecrets": None, "existingConfigMaps": None, "bundle": None},
        "autoscaling": {"enabled": None, "backlog": None, "behavior": None},
        "networkPolicy": {"egress": None, "ingress": None},
        "kerberos": {"keytabs": None, "realms": None, "key": None},
        "startupProbe": {"path": None, "periodSeconds": None},
        "persistence": {"size": None, "enabled": None},
        "proxy": {"url": None, "noProxy": None},
        "policy": {"rules": None, "key": None},
    },
    "a policy from a value": on(
        BASIC, policy={"rules": {"hosts": {"allow": [".corp.example"]}, "connection": {"http": "sealed"}}}
    ),
    "a policy from a ConfigMap": on(BASIC, policy={"existingConfigMap": "policy", "key": "own.toml"}),
    "settings of all kinds": on(
        BASIC,
        agentNamePrefix="berlin-",
        tags=["web", "region=eu", "süd"],
        description="Serves\n  the web farm",
        config={
            "slots": 200,
            "scope": "platform/web",
            "drain_grace": "1h 30m",
            "transport": "stream",
            "pool": {"max_sessions": 2000, "commands_per_user": 1000000, "shell_idle": "5m"},
            "admission": {"cpu_percent": 80, "memory_percent": "off"},
            "log": {"format": "json", "level": "debug"},
            "kerberos": {"caches": ["FILE:/tmp/krb5cc_10001"]},
        },
    ),
    "settings that say the same twice": on(
        BASIC, tags=["web"], config={"tags": ["web"], "control_plane": "https://lictor.example:7443"}
    ),
    "a join token that something else brings": {
        "controlPlane": {"endpoint": "https://[2001:db8::7]:7443"},
        "config": {"join_token_file": "/vault/join"},
        "http": {"address": "[::]", "port": 13460},
        "extraVolumes": [{"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}}],
        "extraVolumeMounts": [{"name": "vault", "mountPath": "/vault", "readOnly": True}],
    },
    "the key of a Secret": on(BASIC, joinToken={"existingSecret": "join", "key": "other"}),
    "the Secret of Harness's name": {
        "managerEndpoint": "lictor.example:443/path",
        "existingDelegateToken": "harness-join",
    },
    "a long drain": on(BASIC, config={"drain_grace": "24h"}),
    "no drain": on(BASIC, config={"drain_grace": "0s"}),
    "a longer grace than must be": on(BASIC, terminationGracePeriodSeconds=600),
    "scaled by the processor": on(BASIC, autoscaling={"enabled": True}),
    "scaled by Harness's names": on(
        HARNESS,
        autoscaling={
            "enabled": True,
            "minReplicas": 2,
            "maxReplicas": 4,
            "targetCPUUtilizationPercentage": 70,
            "targetMemoryUtilizationPercentage": 90,
        },
        persistence={"enabled": False},
    ),
    "scaled by tasks": on(
        BASIC,
        autoscaling={
            "enabled": True,
            "targetSlotsUsed": 12,
            "backlog": {"targetPerPod": 20, "matchLabels": {"namespace": "lictor"}},
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {
                        "name": "cpu",
                        "container": "agent",
                        "target": {"type": "Utilization", "averageUtilization": 60},
                    },
                },
            ],
        },
    ),
    "monitored": on(
        BASIC,
        metrics={
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
            "podMonitor": {"enabled": True, "interval": "1m"},
        },
    ),
    "a narrow network": on(
        BASIC,
        networkPolicy={
            "egress": {
                "controlPlane": [{"ipBlock": {"cidr": "10.1.0.5/32"}}],
                "kdc": [{"ipBlock": {"cidr": "10.2.0.0/24"}}],
                "kdcPorts": [88, 464],
                "winrm": [{"ipBlock": {"cidr": "10.3.0.0/16"}}],
                "winrmPorts": [5986],
                "aws": True,
                "instanceMetadata": True,
                "packages": True,
                "dnsPorts": [53],
                "extra": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/24"}}], "ports": [{"port": 514, "protocol": "UDP"}]}],
            },
            "ingress": {
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "extra": [{"from": [{"podSelector": {}}]}],
            },
        },
    ),
    "no network policy, no budget, no account": on(
        BASIC,
        networkPolicy={"enabled": False},
        podDisruptionBudget={"enabled": False},
        serviceAccount={"create": False},
    ),
    "an account with a role of AWS": on(
        BASIC, serviceAccount={"name": "lictor", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}
    ),
    "a budget of pods that must be there": on(BASIC, replicas=3, podDisruptionBudget={"minAvailable": "50%"}),
    "an uid that the platform chooses": on(
        BASIC, podSecurityContext={"runAsUser": None, "fsGroup": None, "fsGroupChangePolicy": None}
    ),
    "an image of one's own": on(
        BASIC,
        image={
            "registry": "registry.example",
            "repository": "team/lictor-agent",
            "digest": "sha256:" + "0" * 64,
            "pullPolicy": "Always",
        },
        imagePullSecrets=["pull-a"],
        imagePullSecret="pull-b",
    ),
    "an image of Harness's name": on(HARNESS, delegateDockerImage="registry.example/lictor-agent:1"),
    "everything that pods can have": on(
        BASIC,
        fullnameOverride="Web.Agents",
        commonLabels={"team": "web"},
        commonAnnotations={"note": "1"},
        podLabels={"tier": "x"},
        podAnnotations={"p": "1"},
        annotations={"prometheus.io/scrape": "true"},
        delegateLabels={"d": "1"},
        delegatePodLabels={"e": "1"},
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"key": "a", "operator": "Exists"}],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"a": "b"}},
                        },
                    },
                ]
            }
        },
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        priorityClassName="high",
        schedulerName="own",
        runtimeClassName="gvisor",
        dnsPolicy="None",
        dnsConfig={"nameservers": ["10.0.0.53"], "options": [{"name": "ndots", "value": "2"}]},
        hostAliases=[{"ip": "10.0.0.1", "hostnames": ["dc1.corp.example"]}],
        extraEnv=[{"name": "TZ", "value": "Europe/Berlin"}],
        extraEnvFrom=[{"configMapRef": {"name": "more"}}],
        extraVolumes=[{"name": "more", "emptyDir": {}}],
        extraVolumeMounts=[{"name": "more", "mountPath": "/more"}],
        resources={"requests": {"cpu": "1", "memory": "1Gi"}},
        tmp={"medium": "", "size": "1Gi"},
        minReadySeconds=30,
        revisionHistoryLimit=1,
        replicas=2,
    ),
    "containers of others, and Harness's names for all that": on(
        HARNESS,
        delegateName="winrm",
        tags="a, b ,,c",
        description="d",
        replicas=2,
        cpu=0.5,
        memory=256,
        pollForTasks="true",
        persistence={"enabled": False},
        rollingUpdate={"maxSurge": "50%", "maxUnavailable": 1},
        custom_envs=[{"name": "DELEGATE_TASK_CAPACITY", "value": "8"}],
        custom_volumes=[{"name": "v", "emptyDir": {}}],
        custom_mounts=[{"name": "v", "mountPath": "/v"}],
    ),
    "Recreate": on(HARNESS, persistence={"enabled": False}, deploymentStrategy="Recreate"),
    "root without asking by our own name": on(HARNESS, securityContext={"runAsRoot": True}),
}

# What a user of Harness has who copied the whole values.yaml of its chart (names and defaults are facts of a public
# file), with the two that must be changed.
COPIED = {
    **HARNESS,
    "image": {"pullPolicy": "Always"},
    "fullnameOverride": "",
    "mTLS": {"secretName": ""},
    "serviceAccount": {"create": True, "annotations": {}, "name": ""},
    "service": {"port": 8080},
    "autoscaling": {"enabled": False, "minReplicas": 1, "maxReplicas": 10, "targetCPUUtilizationPercentage": 80},
    "nodeSelector": {},
    "tolerations": [],
    "affinity": {},
    "priorityClassName": "",
    "delegateName": "harness-delegate-ng",
    "deployMode": "KUBERNETES",
    "delegateDockerImage": "registry.example/harness-public/harness/delegate:25.12.87402",
    "commonAnnotations": {},
    "delegateAnnotations": {},
    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "3460", "prometheus.io/path": "/api/metrics"},
    "commonLabels": {},
    "delegatePodLabels": {},
    "delegateLabels": {},
    "imagePullSecret": "",
    "pollForTasks": "false",
    "startupProbe": {"initialDelaySeconds": 10, "periodSeconds": 10, "failureThreshold": 40, "timeoutSeconds": 1},
    "livenessProbe": {"initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 3, "timeoutSeconds": 1},
    "description": "",
    "tags": "",
    "k8sPermissionsType": "CLUSTER_ADMIN",
    "replicas": 1,
    "deploymentStrategy": "RollingUpdate",
    "cpu": 1,
    "memory": 2048,
    "initScript": "",
    "delegateType": "HELM_DELEGATE",
    "javaOpts": "-Xms64M",
    "upgrader": {
        "enabled": True,
        "image": {"pullPolicy": "Always"},
        "schedule": "0 */1 * * *",
        "securityContext": None,
    },
    "securityContext": {"runAsRoot": True},
    "delegatePodSecurityContext": {"runAsUser": 0, "fsGroup": 1001},
    "delegateSecurityContext": {"allowPrivilegeEscalation": False, "runAsUser": 0},
    "nextGen": True,
    "accountId": "abc",
    "existingDelegateToken": "",
    "shared_certificates": {"certs_path": "/shared/ca.bundle", "ca_bundle": None, "ci_mount_targets": None},
    "custom_init_containers": None,
    "custom_containers": None,
    "custom_envs": None,
    "custom_mounts": None,
    "custom_volumes": None,
    "minReadySeconds": 120,
    "ccm": {"visibility": False},
    "additionalLabels": {},
    "dnsConfig": {},
    "dnsPolicy": "",
    "upgraderCustomCa": {"secretName": None},
    "delegateCustomCa": {"secretName": None},
    "destinationCaPath": None,
}
GOOD["all values of Harness's chart, copied"] = COPIED
