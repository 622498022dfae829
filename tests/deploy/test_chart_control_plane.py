"""The control plane's chart, as helm itself, Kubernetes' schemas, the Pod Security Standards and the program judge it.

`LICTOR_WRITE_DOCS=1` writes the table of values.
"""

import functools
import os
import unittest

import yaml

from chart_checks import documented, judges, pod_security
from chart_checks.rendering import CHARTS, NAMESPACE, RELEASE, Refused, lint, notes, render

CHART = "lictor-control-plane"
NAME = f"{RELEASE}-{CHART}"
# 32 bytes of nobody's.
OUTSIDE = {
    "12345": {"1e3": "QUJD" * 10 + "QUI="},
    "master": {"master-key": "QUJD" * 10 + "QUI=", "other": "QUJD" * 10 + "QUI="}}

GOOD = {
    "nothing": {},
    "a key of one's own": {"masterKey": {"existingSecret": "master"}},
    "a key under another name": {"masterKey": {"existingSecret": "master", "key": "other"}},
    "a load balancer": {
        "names": ["lictor.example", "192.0.2.7"],
        "service": {
            "type": "LoadBalancer",
            "port": 443,
            "annotations": {"a.example/type": "nlb"},
            "loadBalancerClass": "x.example/nlb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "externalTrafficPolicy": "Local",
        },
    },
    "a port of each node": {"service": {"type": "NodePort", "nodePort": 30743}},
    "settings": {
        "config": {
            "retention": {"tasks": "90d", "outputs": "14d", "output_bytes": "100GiB"},
            "limits": {"tasks_per_host": 5, "tasks_per_credential": 20},
            "lease": "60s",
            "heartbeat_interval": "20s",
            "log": {"format": "json"},
            "connections": {"per_source": 4096},
        },
        "persistence": {
            "size": "200Gi",
            "storageClassName": "fast",
            "whenDeleted": "Delete",
            "annotations": {"a": "b"},
        },
    },
    "no volume": {"persistence": {"enabled": False}},
    "an existing claim": {"persistence": {"existingClaim": "kept"}},
    "other ports": {"grpc": {"port": 17443, "address": "[::]"}, "http": {"port": 17480, "address": "[::]"}},
    "monitored": {"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}},
    "a narrow network": {
        "networkPolicy": {
            "ingress": {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "extra": [{"from": [{"podSelector": {}}]}],
            },
            "egress": {"extra": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/24"}}]}]},
        },
    },
    "no network policy, no account": {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "everything that pods can have": {
        "fullnameOverride": "lictor",
        "commonLabels": {"team": "x"},
        "commonAnnotations": {"a": "b"},
        "podLabels": {"b": "c"},
        "podAnnotations": {"c": "d"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "imagePullSecrets": ["pull"],
        "image": {"registry": "registry.example", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "podSecurityContext": {"runAsUser": None, "fsGroup": None},
        "terminationGracePeriodSeconds": 60,
    },
    "a platform that chooses the uid": {"platformChoosesUser": True},
    "traces": {"config": {"telemetry": {"otlp_endpoint": "http://collector.example:14317"}}},
    "traces by a variable": {
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.example:14318"}]
    },
    "another /tmp": {
        "extraVolumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "9Gi"}}],
        "extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    },
    "names that look like numbers": {
        "masterKey": {"existingSecret": "12345", "key": "1e3"},
        "imagePullSecrets": ["12345"],
        "priorityClassName": "true",
        "persistence": {"storageClassName": "1e3"},
        "serviceAccount": {"name": "1"},
        "service": {"type": "LoadBalancer", "loadBalancerClass": "1"},
    },
    "sections that are empty": dict.fromkeys(
        [
            "image",
            "persistence",
            "service",
            "grpc",
            "http",
            "resources",
            "masterKey",
            "names",
            "config",
            "networkPolicy",
            "metrics",
            "serviceAccount",
            "startupProbe",
            "livenessProbe",
            "readinessProbe",
            "podSecurityContext",
            "containerSecurityContext",
            "terminationGracePeriodSeconds",
            "clusterDomain",
        ]
    ),
    "values that are empty": {
        "image": {"registry": None, "repository": None, "tag": None},
        "service": {"type": None, "nodePort": None},
        "networkPolicy": {"ingress": None, "egress": None},
        "metrics": {"serviceMonitor": None},
    },
}
BAD = {
    "a setting that is none": ({"config": {"leases": "30s"}}, "additional properties 'leases' not allowed"),
    "a setting that is no time": ({"config": {"lease": "soon"}}, "at '/config/lease'"),
    "replicas": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "a setting of the chart's": (
        {"config": {"listen": "0.0.0.0:1"}},
        "config.listen: comes from grpc.address and grpc.port",
    ),
    "names as a setting": ({"config": {"names": ["x"]}}, "config.names: comes from the value names"),
    "two master keys": (
        {"config": {"master_key_file": "/x"}, "masterKey": {"existingSecret": "s"}},
        "config.master_key_file and masterKey",
    ),
    "many writers": ({"persistence": {"accessModes": ["ReadWriteMany"]}}, "at '/persistence/accessModes/0'"),
    "a policy of traffic without traffic": (
        {"service": {"externalTrafficPolicy": "Local"}},
        "is for the types LoadBalancer and NodePort",
    ),
    "a proxy of layer 7": ({"service": {"type": "Ingress"}}, "at '/service/type'"),
    "a name that is none": ({"fullnameOverride": "9 lives"}, "cannot be the name of objects"),
    "a port of nodes without any": ({"service": {"nodePort": 30743}}, "service.nodePort is for the types"),
    "a key for traces in their URL": (
        {"config": {"telemetry": {"otlp_endpoint": "https://k:x@c.example"}}},
        "config.telemetry.otlp_endpoint is not of the form",
    ),
    "a collector that only a Secret knows": (
        {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": "p", "key": "k"}}}]},
        "use config.telemetry.otlp_endpoint",
    ),
    **{
        f"{variable} beside the chart": (
            {"extraEnv": [{"name": variable, "value": "1"}]},
            f"{variable} would go before what the chart has made: use the value {value}",
        )
        for variable, value in {
            "LICTOR_CONTROL_PLANE_LISTEN": "grpc.address and grpc.port",
            "LICTOR_CONTROL_PLANE_HTTP_LISTEN": "http.address and http.port",
            "LICTOR_CONTROL_PLANE_STATE_DIR": "persistence",
            "LICTOR_CONTROL_PLANE_NAMES": "names",
            "LICTOR_CONTROL_PLANE_MASTER_KEY_FILE": "masterKey.existingSecret",
        }.items()
    },
    "a variable of the chart's": (
        {"extraEnv": [{"name": "LICTOR_SERVER", "value": "x"}]},
        "extraEnv: LICTOR_SERVER is the chart's own",
    ),
    "a volume of the chart's": (
        {"extraVolumes": [{"name": "state", "emptyDir": {}}]},
        "extraVolumes: state is the chart's own",
    ),
    "a mount of the chart's": (
        {"extraVolumeMounts": [{"name": "v", "mountPath": "/etc/lictor/control-plane/"}]},
        "extraVolumeMounts: /etc/lictor/control-plane is the chart's own",
    ),
    "a variable that is a number": ({"extraEnv": [{"name": "A", "value": 8}]}, "at '/extraEnv/0/value'"),
    "a label that is none": ({"podLabels": {"team": "a b"}}, "at '/podLabels/team'"),
    "a name of the certificate that is none": ({"names": ["https://lictor.example"]}, "at '/names/0'"),
}


@functools.cache
def rendered(name):
    return render(CHART, GOOD[name])


def with_each(check):
    """A test of every rendering."""

    @functools.wraps(check)
    def test(self):
        for name in GOOD:
            with self.subTest(values=name):
                check(self, name, rendered(name))

    return test


class ControlPlane(unittest.TestCase):
    maxDiff = None

    def test_helm_finds_nothing_to_complain_of(self):
        code, out, error = lint(CHART, {})
        self.assertEqual(code, 0, out + error)

    @with_each
    def test_kubernetes_takes_every_object(self, _, one):
        for thing in one.objects:
            self.assertEqual(judges.kubernetes(thing), [])
            self.assertEqual(thing["metadata"]["namespace"], NAMESPACE)
        names = [(thing["kind"], thing["metadata"]["name"]) for thing in one.objects]
        self.assertEqual(len(names), len(set(names)))

    @with_each
    def test_the_control_plane_takes_its_settings(self, _, one):
        code, out, error = judges.check_config(one, OUTSIDE, "lictor-control-plane", "LICTOR_CONTROL_PLANE_")
        self.assertEqual(code, 0, out + error)

    def test_the_control_plane_would_find_a_mistake(self):
        wrong = render(CHART, {"config": {"lease": "2fortnights"}})
        code, _, error = judges.check_config(wrong, OUTSIDE, "lictor-control-plane", "LICTOR_CONTROL_PLANE_")
        self.assertEqual(code, 78)
        self.assertIn("lease", error)

    @with_each
    def test_the_pod_is_restricted_and_has_no_rights(self, _, one):
        self.assertEqual(pod_security.restricted(one.template), [])
        self.assertIs(one.container["securityContext"]["readOnlyRootFilesystem"], True)
        self.assertIs(one.pod["automountServiceAccountToken"], False)
        self.assertEqual([thing["kind"] for thing in one.objects if "Role" in thing["kind"]], [])

    @with_each
    def test_there_is_one_pod_with_one_state(self, name, one):
        spec = one.workload["spec"]
        self.assertEqual((one.workload["kind"], spec["replicas"]), ("StatefulSet", 1))
        volumes = [volume["name"] for volume in one.pod["volumes"]]
        volumes += [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
        self.assertEqual(volumes.count("state"), 1)
        self.assertEqual({mount["name"] for mount in one.container["volumeMounts"]} - set(volumes), set())
        self.assertFalse([mount for mount in one.container["volumeMounts"] if "subPath" in mount])
        self.assertEqual(spec["serviceName"], one.one("Service", spec["serviceName"])["metadata"]["name"])

    @with_each
    def test_the_certificate_has_the_names_of_the_service(self, name, one):
        settings = yaml.safe_load(one.one("ConfigMap")["data"]["control-plane.yaml"])
        service = one.workload["metadata"]["name"]
        for wanted in (service, f"{service}.{NAMESPACE}.svc", "localhost", *(GOOD[name].get("names") or [])):
            self.assertIn(wanted, settings["names"])
        self.assertIn(f"https://{service}.{NAMESPACE}.svc:", notes(CHART, GOOD[name]))

    @with_each
    def test_metrics_are_never_shown_by_a_load_balancer(self, name, one):
        main, metrics = (
            one.one("Service", one.workload["metadata"]["name"] + suffix)["spec"] for suffix in ("", "-metrics")
        )
        self.assertEqual([port["name"] for port in main["ports"]], ["grpc"])
        self.assertEqual(([port["name"] for port in metrics["ports"]], metrics["clusterIP"]), (["http"], "None"))
        for monitor in one.all("ServiceMonitor"):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            found = [
                service["metadata"]["name"]
                for service in one.all("Service")
                if wanted <= service["metadata"]["labels"].items()
            ]
            self.assertEqual(found, [one.workload["metadata"]["name"] + "-metrics"])

    @with_each
    def test_no_name_is_there_twice(self, _, one):
        for key, things in (
            ("name", one.container["env"]),
            ("name", one.pod["volumes"]),
            ("mountPath", one.container["volumeMounts"]),
        ):
            names = [thing[key] for thing in things]
            self.assertEqual(len(names), len(set(names)), names)

    def test_empty_sections_are_the_defaults(self):
        for name in ("sections that are empty", "values that are empty"):
            self.assertEqual(rendered(name).objects, rendered("nothing").objects)

    def test_a_user_that_the_platform_chooses_is_not_named(self):
        context = rendered("a platform that chooses the uid").pod["securityContext"]
        self.assertEqual(set(context), {"runAsNonRoot", "seccompProfile"})

    def test_traces_go_out(self):
        for name, port in (("traces", 14317), ("traces by a variable", 14318)):
            (rule,) = rendered(name).one("NetworkPolicy")["spec"]["egress"]
            self.assertIn({"port": port, "protocol": "TCP"}, rule["ports"])

    def test_nothing_goes_out_unless_it_is_said(self):
        self.assertEqual(rendered("nothing").one("NetworkPolicy")["spec"]["egress"], [])
        narrow = rendered("a narrow network").one("NetworkPolicy")["spec"]
        self.assertEqual(narrow["egress"], GOOD["a narrow network"]["networkPolicy"]["egress"]["extra"])
        self.assertEqual([rule.get("ports", [{}])[0].get("port") for rule in narrow["ingress"]], ["grpc", "http", None])
        self.assertTrue(all("from" in rule for rule in narrow["ingress"]))

    def test_lictor_in_the_container_finds_its_server(self):
        variables = rendered("other ports").environment()
        self.assertEqual(variables["LICTOR_SERVER"], "https://localhost:17443")
        for name in ("LICTOR_CA", "LICTOR_TOKEN_FILE"):
            self.assertTrue(variables[name].startswith(variables["LICTOR_CONTROL_PLANE_STATE_DIR"] + "/"))

    def test_notes_say_how_to_begin_and_what_to_fear(self):
        told = notes(CHART, {})
        self.assertIn("lictor token create --max-uses 0", told)
        self.assertIn("the master key lies on the volume", told)
        self.assertNotIn("the master key lies on the volume", notes(CHART, GOOD["a key of one's own"]))
        self.assertIn("nothing outlives the pod", notes(CHART, GOOD["no volume"]))

    def test_what_cannot_be_meant_is_refused_in_words(self):
        for name, (values, words) in BAD.items():
            with self.subTest(values=name):
                with self.assertRaises(Refused) as refused:
                    render(CHART, values)
                self.assertIn(words, str(refused.exception))

    def test_the_chart_is_of_the_version_of_the_programs(self):
        self.assertEqual(documented.about(CHART)["appVersion"], documented.version())

    def test_every_value_is_described_and_in_the_schema(self):
        described, values = documented.comments(CHART), documented.leaves(CHART)
        self.assertEqual([path for path in values if path not in described], [])
        self.assertEqual(documented.schema_keys(CHART) - {"global"}, set(values))

    def test_the_schema_knows_the_settings(self):
        page = CHARTS / CHART / "values.schema.json"
        wanted = documented.schema_text(CHART)
        if os.environ.get("LICTOR_WRITE_DOCS"):
            page.write_text(wanted)
        self.assertEqual(page.read_text(), wanted, "run with LICTOR_WRITE_DOCS=1")

    def test_the_templates_know_the_defaults(self):
        page = CHARTS / CHART / "templates/_defaults.tpl"
        wanted = documented.defaults_template(CHART)
        if os.environ.get("LICTOR_WRITE_DOCS"):
            page.write_text(wanted)
        self.assertEqual(page.read_text(), wanted, "run with LICTOR_WRITE_DOCS=1")

    def test_the_readme_has_the_values(self):
        page = CHARTS / CHART / "README.md"
        wanted = documented.readme(CHART)
        if os.environ.get("LICTOR_WRITE_DOCS"):
            page.write_text(wanted)
        self.assertEqual(page.read_text(), wanted, "run with LICTOR_WRITE_DOCS=1")


if __name__ == "__main__":
    unittest.main()
