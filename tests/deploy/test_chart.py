"""The agent's chart: helm itself, Kubernetes' schemas, the Pod Security Standards and the agent judge what it renders.

`LICTOR_WRITE_DOCS=1` writes what this test compares with: the tables of values and the manifests under deploy/.
"""

import base64
import functools
import json
import os
import pathlib
import shutil
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

import jsonschema

from chart_checks import documented, judges, pod_security
from chart_checks.agent_cases import BASIC, COPIED, GOOD, HARNESS, KEYTAB, KRB5_CONF, MARKER, OUTSIDE, SCRIPT, on
from chart_checks.agent_refused import BAD
from chart_checks.rendering import CHARTS, NAMESPACE, RELEASE, Refused, Rendered, helm, lint, notes, render
from drain import AFTER_DRAIN, bounds_after_drain

CHART = "lictor-agent"
# Kinds that would give rights in the cluster.
RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
# The names that Harness users know, as shared/reference lists them: a value of each that is not its default.
HARNESS_NAMES = {
    "accountId": "x",
    "delegateToken": "x",
    "existingDelegateToken": "x",
    "delegateName": "x",
    "managerEndpoint": "https://y.example",
    "delegateDockerImage": "r.example/x:1",
    "image.registry": "r",
    "image.repository": "r",
    "image.tag": "t",
    "image.pullPolicy": "Always",
    "imagePullSecret": "x",
    "replicas": 2,
    "cpu": 2,
    "memory": 99,
    "resources": {"requests": {"cpu": "2"}},
    "tags": "a",
    "description": "d",
    "initScript": "true",
    "pollForTasks": "true",
    "k8sPermissionsType": "CLUSTER_ADMIN",
    "serviceAccount.create": False,
    "serviceAccount.name": "x",
    "serviceAccount.annotations": {"a": "b"},
    "mTLS.secretName": "x",
    "delegateCustomCa.secretName": "x",
    "destinationCaPath": "/x",
    "shared_certificates.ca_bundle": "-----BEGIN CERTIFICATE-----\n",
    "shared_certificates.ci_mount_targets": ["/x"],
    "shared_certificates.certs_path": "/x",
    "proxyHost": "x",
    "proxyPort": 1,
    "proxyScheme": "https",
    "proxyUser": "u",
    "proxyPassword": "p",
    "noProxy": "x",
    "autoscaling.enabled": True,
    "autoscaling.minReplicas": 2,
    "autoscaling.maxReplicas": 3,
    "autoscaling.targetCPUUtilizationPercentage": 50,
    "autoscaling.targetMemoryUtilizationPercentage": 50,
    "startupProbe.initialDelaySeconds": 9,
    "startupProbe.periodSeconds": 9,
    "startupProbe.failureThreshold": 9,
    "startupProbe.timeoutSeconds": 9,
    "livenessProbe.initialDelaySeconds": 9,
    "livenessProbe.periodSeconds": 9,
    "livenessProbe.failureThreshold": 9,
    "livenessProbe.timeoutSeconds": 9,
    "minReadySeconds": 9,
    "deploymentStrategy": "Recreate",
    "rollingUpdate.maxSurge": 2,
    "rollingUpdate.maxUnavailable": 2,
    "custom_envs": [{"name": "A", "value": "b"}],
    "custom_mounts": [{"name": "a", "mountPath": "/a"}],
    "custom_volumes": [{"name": "a", "emptyDir": {}}],
    "custom_containers": [{"name": "a"}],
    "custom_init_containers": [{"name": "a"}],
    "securityContext.runAsRoot": True,
    "annotations": {"a": "b"},
    "commonLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "x",
    "dnsConfig": {"nameservers": ["10.0.0.1"]},
    "dnsPolicy": "Default",
    "fullnameOverride": "x",
    "upgrader": {"enabled": True},
}
# What one of them needs beside itself to mean anything.
COMPANIONS = {
    "proxyPort": {"proxyHost": "x"},
    "proxyScheme": {"proxyHost": "x"},
    "proxyUser": {"proxyHost": "x"},
    "proxyPassword": {"proxyHost": "x", "proxyUser": "u"},
    "rollingUpdate.maxSurge": {"persistence": {"enabled": False}},
    "deploymentStrategy": {"persistence": {"enabled": False}},
    "autoscaling.minReplicas": {"autoscaling": {"enabled": True}},
    "autoscaling.maxReplicas": {"autoscaling": {"enabled": True}},
    "autoscaling.targetCPUUtilizationPercentage": {"autoscaling": {"enabled": True}},
    "autoscaling.targetMemoryUtilizationPercentage": {"autoscaling": {"enabled": True}},
}


def setUpModule():
    global rendered
    with ThreadPoolExecutor(max_workers=2) as pool:
        rendered = dict(zip(GOOD, pool.map(lambda name: render(CHART, GOOD[name]), GOOD), strict=True))


def seconds(text):
    """A time as the agent prints it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "day": 86400, "days": 86400}
    total = 0
    for part in text.split():
        number = part.rstrip("abcdefghijklmnopqrstuvwxyz")
        total += int(number) * units[part[len(number) :]]
    return total


def with_each(check):
    """A test of every rendering."""

    @functools.wraps(check)
    def test(self):
        for name, one in rendered.items():
            with self.subTest(values=name):
                check(self, name, one)

    return test


@functools.cache
def settings_of(name):
    """What the agent says of its settings, by key."""
    about = judges.agent_settings(rendered[name], OUTSIDE)
    return {setting["key"]: setting["value"] for setting in about["settings"]}


class Agent(unittest.TestCase):
    maxDiff = None

    def test_helm_finds_nothing_to_complain_of(self):
        for name in (
            "smallest, as Harness users write it",
            "settings of all kinds",
            "all values of Harness's chart, copied",
        ):
            with self.subTest(values=name):
                code, out, error = lint(CHART, GOOD[name])
                self.assertEqual(code, 0, out + error)

    @with_each
    def test_kubernetes_takes_every_object(self, _, one):
        for thing in one.objects:
            self.assertEqual(judges.kubernetes(thing), [])
            self.assertEqual(thing["metadata"]["namespace"], NAMESPACE)

    @with_each
    def test_names_of_objects_are_unique(self, _, one):
        names = [(thing["kind"], thing["metadata"]["name"]) for thing in one.objects]
        self.assertEqual(len(names), len(set(names)), names)

    @with_each
    def test_the_agent_takes_its_settings(self, name, one):
        settings = settings_of(name)
        variables = one.environment()
        self.assertEqual(settings["state_dir"], variables["LICTOR_AGENT_STATE_DIR"])
        self.assertEqual(settings["http_listen"], variables["LICTOR_AGENT_HTTP_LISTEN"])
        self.assertTrue(settings["http_listen"].endswith(f":{one.container['ports'][0]['containerPort']}"))
        self.assertFalse(settings["http_listen"].startswith("127."))
        pod = one.workload["metadata"]["name"] + "-0"
        self.assertEqual(settings["name"], GOOD[name].get("agentNamePrefix", "") + pod)

    @with_each
    def test_pods_get_more_time_than_the_drain_needs(self, name, one):
        grace = one.pod["terminationGracePeriodSeconds"]
        self.assertGreaterEqual(grace, seconds(settings_of(name)["drain_grace"]) + AFTER_DRAIN)

    def test_what_follows_the_drain_is_what_the_agent_may_need(self):
        self.assertLessEqual(bounds_after_drain(), AFTER_DRAIN)

    def test_a_user_that_the_platform_chooses_is_not_named(self):
        context = rendered["an uid that the platform chooses"].pod["securityContext"]
        self.assertEqual(set(context), {"runAsNonRoot", "seccompProfile"})
        self.assertEqual(rendered["a platform that chooses the uid"].pod["securityContext"], context)

    def test_a_parent_chart_can_let_the_platform_choose(self):
        # Nulls of a parent's values do not reach the charts below it.
        with tempfile.TemporaryDirectory(prefix="lictor-parent-") as parent:
            for chart in ("lictor-agent", "lictor-control-plane"):
                shutil.copytree(CHARTS / chart, f"{parent}/charts/{chart}")
            about = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
            pathlib.Path(parent, "Chart.yaml").write_text(json.dumps(about))
            values = {"lictor-agent": on(BASIC, platformChoosesUser=True, image=None, service={"port": None}),
                      "lictor-control-plane": {"platformChoosesUser": True, "image": {"tag": None}}}
            pathlib.Path(parent, "values.yaml").write_text(json.dumps(values))
            code, out, error = helm("template", "trial", parent)
            self.assertEqual(code, 0, error)
            workloads = [one for one in Rendered("parent", out).objects if one["kind"] == "StatefulSet"]
            self.assertEqual(len(workloads), 2)
            for one in workloads:
                context = one["spec"]["template"]["spec"]["securityContext"]
                self.assertEqual(set(context), {"runAsNonRoot", "seccompProfile"})

    def test_the_grace_follows_the_drain(self):
        def grace(name):
            return rendered[name].pod["terminationGracePeriodSeconds"]

        self.assertEqual(grace("smallest, with names of our own"), 160)
        self.assertEqual(grace("a long drain"), 86500)
        self.assertEqual(grace("no drain"), 100)
        self.assertEqual(grace("a longer grace than must be"), 600)

    @with_each
    def test_the_start_may_take_as_long_as_the_script(self, name, one):
        settings = settings_of(name)
        probe = one.container["startupProbe"]
        budget = probe["failureThreshold"] * probe["periodSeconds"]
        self.assertGreaterEqual(budget, 60)
        # A probe of /live passes while a script runs, so that copied values with a smaller budget do no harm.
        given = (GOOD[name].get("startupProbe") or {}).get("failureThreshold")
        if (settings["bootstrap.script_file"] or "INIT_SCRIPT" in one.environment()) and not given:
            self.assertGreaterEqual(budget, seconds(settings["bootstrap.timeout"]))
        # Whether a pod is started anew never depends on the control plane.
        self.assertEqual(one.container["livenessProbe"]["httpGet"]["path"], "/live")
        self.assertEqual(one.container["readinessProbe"]["httpGet"]["path"], "/ready")

    @with_each
    def test_pods_keep_to_the_pod_security_standards(self, name, one):
        context = one.container["securityContext"]
        root = one.pod["securityContext"].get("runAsUser") == 0
        alias = (GOOD[name].get("securityContext") or {}).get("runAsRoot") is True
        self.assertEqual(root, (GOOD[name].get("profile") or ("root" if alias else "")) == "root")
        self.assertEqual(pod_security.baseline(one.template), [])
        self.assertEqual(bool(pod_security.restricted(one.template)), root)
        self.assertEqual(context["readOnlyRootFilesystem"], not root)
        self.assertIs(context["allowPrivilegeEscalation"], False)
        if not root:
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]})

    def test_the_rules_of_the_standards_find_what_they_are_for(self):
        def changed(change):
            template = render(CHART, BASIC).template
            change(template["spec"])
            return pod_security.restricted(template)

        self.assertEqual(changed(lambda pod: None), [])
        context = lambda pod: pod["containers"][0]["securityContext"]  # noqa: E731
        for change in (
            lambda pod: pod.update(hostNetwork=True),
            lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
            lambda pod: pod["securityContext"].pop("runAsNonRoot"),
            lambda pod: pod["securityContext"].pop("seccompProfile"),
            lambda pod: pod["securityContext"].update(runAsUser=0),
            lambda pod: context(pod).pop("capabilities"),
            lambda pod: context(pod).pop("allowPrivilegeEscalation"),
            lambda pod: context(pod)["capabilities"].update(add=["CHOWN"]),
            lambda pod: context(pod).update(privileged=True),
            lambda pod: pod["containers"].append({"name": "other"}),
            lambda pod: pod["containers"][0]["ports"][0].update(hostPort=80),
        ):
            self.assertNotEqual(changed(change), [])

    @with_each
    def test_nothing_gives_rights_in_the_cluster(self, _, one):
        self.assertEqual([thing["kind"] for thing in one.objects if thing["kind"] in RIGHTS], [])
        self.assertIs(one.pod["automountServiceAccountToken"], False)
        self.assertIs(one.pod["enableServiceLinks"], False)

    @with_each
    def test_everything_is_mounted_as_a_directory(self, _, one):
        volumes = [volume["name"] for volume in one.pod["volumes"]]
        volumes += [claim["metadata"]["name"] for claim in one.workload["spec"].get("volumeClaimTemplates", [])]
        self.assertEqual(len(volumes), len(set(volumes)))
        mounts = one.container["volumeMounts"]
        self.assertEqual({mount["name"] for mount in mounts} - set(volumes), set())
        for mount in mounts:
            self.assertNotIn("subPath", mount)
            writable = mount["name"] in ("state", "tmp", "more", "v")
            self.assertEqual(mount.get("readOnly", False), not writable, mount)
        for volume in one.pod["volumes"]:
            source = volume.get("secret") or volume.get("projected")
            if source:
                # Certificates are for everybody, and nothing else is.
                certificates = volume["name"].split("-")[0] == "ca"
                self.assertEqual(source["defaultMode"], 0o444 if certificates else 0o440)

    @with_each
    def test_no_name_is_there_twice(self, _, one):
        for key, things in (
            ("name", one.container["env"]),
            ("name", one.pod["volumes"]),
            ("mountPath", [{"mountPath": each["mountPath"].rstrip("/")} for each in one.container["volumeMounts"]]),
        ):
            names = [thing[key] for thing in things]
            self.assertEqual(len(names), len(set(names)), names)

    def test_keytabs_and_authorities_of_one_name_are_all_there(self):
        def mounted(name, volume):
            return {each["mountPath"] for each in rendered[name].container["volumeMounts"]
                    if each["name"].split("-")[0] == volume}

        def listed(name, setting):
            return settings_of(name)[setting].split(", ")

        several = {f"/etc/lictor/keytabs/{name}" for name in ("keytabs-a", "keytabs-b", "keytabs.c", f"{RELEASE}-{CHART}-keytabs")}
        self.assertEqual(mounted("keytabs of one name", "keytabs"), several)
        self.assertEqual(set(listed("keytabs of one name", "kerberos.keytabs")), several)
        self.assertEqual(mounted("declared realms", "keytabs"), {"/etc/lictor/keytabs"})
        self.assertEqual(listed("declared realms", "kerberos.keytabs"), ["/etc/lictor/keytabs"])
        # The agent's own default finds one, and Harness's directory beside it.
        one = "authorities of one Secret"
        self.assertEqual(mounted(one, "ca"), {"/etc/lictor/ca"})
        self.assertNotIn("ca_files", rendered[one].one("ConfigMap")["data"]["agent.yaml"])
        everywhere = "authorities from everywhere"
        self.assertEqual(set(listed(everywhere, "ca_files")), mounted(everywhere, "ca"))
        self.assertEqual(len(mounted(everywhere, "ca")), 3)
        beside = "authorities beside Harness's directory"
        self.assertEqual(
            listed(beside, "ca_files"),
            ["/etc/lictor/ca/authorities", "/etc/lictor/ca/authorities.configmap",
             "/opt/harness-delegate/ca-bundle", "/etc/lictor/more"],
        )

    def test_resources_go_before_copied_numbers(self):
        name = "resources, and copied numbers"
        self.assertEqual(rendered[name].container["resources"], {"limits": {"memory": "1Gi"}})
        told = notes(CHART, GOOD[name])
        for value in ("cpu", "memory"):
            self.assertIn(f"\n  {value}: resources goes before it", told)

    def test_an_update_can_begin(self):
        self.assertEqual(
            rendered["no surge"].workload["spec"]["strategy"]["rollingUpdate"], {"maxSurge": "0%", "maxUnavailable": 1}
        )

    def test_empty_sections_are_the_defaults(self):
        for name in ("sections that are empty", "values that are empty"):
            self.assertEqual(rendered[name].objects, rendered["smallest, as Harness users write it"].objects)

    def test_another_tmp_takes_the_place_of_ours(self):
        one = rendered["another /tmp"]
        (volume,) = [each for each in one.pod["volumes"] if each["name"] == "tmp"]
        self.assertEqual(volume["emptyDir"], {"sizeLimit": "9Gi"})
        self.assertEqual([each["mountPath"] for each in one.container["volumeMounts"] if each["name"] == "tmp"], ["/tmp/"])
        self.assertIn("\n  tmp.size: ", notes(CHART, on(GOOD["another /tmp"], tmp={"size": "1Gi"})))

    def test_what_does_nothing_is_told(self):
        for values, names in (
            ({"persistence": {"enabled": False, "size": "9Gi"}}, ["persistence.size"]),
            ({"autoscaling": {"enabled": True}, "replicas": 3}, ["replicas"]),
            ({"autoscaling": {"targetSlotsUsed": 3}}, ["autoscaling.targetSlotsUsed"]),
            ({"ephemeralStateSize": "9Gi"}, ["ephemeralStateSize"]),
            (
                {"persistence": {"enabled": False}, "deploymentStrategy": "Recreate", "rollingUpdate": {"maxSurge": 2}},
                ["rollingUpdate.maxSurge"],
            ),
            ({"profile": "restricted", "securityContext": {"runAsRoot": True}}, ["securityContext.runAsRoot"]),
            ({"delegateDockerImage": "mirror.example/harness-delegate:25.1"}, ["delegateDockerImage"]),
        ):
            told = notes(CHART, on(BASIC, **values))
            for name in names:
                self.assertIn(f"\n  {name}: ", told)
        self.assertNotIn("These values do nothing", notes(CHART, BASIC))
        self.assertIn("must name an image of this agent", notes(CHART, GOOD["an image of Harness's name"]))

    def test_secrets_stand_in_secrets_only(self):
        seen = 0
        for name, one in rendered.items():
            if MARKER not in str(GOOD[name]):
                continue
            with self.subTest(values=name):
                for thing in one.objects:
                    if thing["kind"] == "Secret":
                        texts = [base64.b64decode(value).decode("latin-1") for value in thing["data"].values()]
                        seen += sum(MARKER in text for text in texts)
                    else:
                        self.assertNotIn(MARKER, str(thing))
                self.assertNotIn(MARKER, notes(CHART, GOOD[name]))
        self.assertGreater(seen, 8)

    @with_each
    def test_selectors_find_the_pods_and_nothing_is_left_over(self, _, one):
        labels = one.template["metadata"]["labels"]
        selectors = [one.workload["spec"]["selector"]["matchLabels"]]
        selectors += [thing["spec"]["selector"]["matchLabels"] for thing in one.all("PodDisruptionBudget")]
        selectors += [thing["spec"]["podSelector"]["matchLabels"] for thing in one.all("NetworkPolicy")]
        selectors += [thing["spec"]["selector"] for thing in one.all("Service")]
        selectors += [constraint["labelSelector"]["matchLabels"] for constraint in one.pod["topologySpreadConstraints"]]
        for selector in selectors:
            self.assertEqual(selector, selectors[0])
            self.assertLessEqual(selector.items(), labels.items())
        made = {account["metadata"]["name"] for account in one.all("ServiceAccount")}
        self.assertEqual({one.pod["serviceAccountName"]} - {"default"}, made)
        if one.workload["kind"] == "StatefulSet":
            self.assertEqual(one.workload["spec"]["serviceName"], one.one("Service")["metadata"]["name"])

    @with_each
    def test_autoscaling_aims_at_the_workload(self, _, one):
        scalers = one.all("HorizontalPodAutoscaler")
        self.assertEqual("replicas" in one.workload["spec"], not scalers)
        for scaler in scalers:
            target = scaler["spec"]["scaleTargetRef"]
            self.assertEqual((target["kind"], target["name"]), (one.workload["kind"], one.workload["metadata"]["name"]))

    def test_autoscaling_knows_metrics_that_exist(self):
        metrics = rendered["scaled by tasks"].one("HorizontalPodAutoscaler")["spec"]["metrics"]
        self.assertEqual([metric["type"] for metric in metrics], ["Pods", "External", "ContainerResource"])
        listed = (CHARTS.parent / "docs/metrics.md").read_text()
        for name in (metrics[0]["pods"]["metric"]["name"], metrics[1]["external"]["metric"]["name"]):
            self.assertIn(f"| `{name}` |", listed)
        cpu = rendered["scaled by the processor"].one("HorizontalPodAutoscaler")["spec"]["metrics"]
        self.assertEqual(cpu[0]["resource"]["target"]["averageUtilization"], 80)

    def ports(self, name, protocol="TCP"):
        rules = rendered[name].one("NetworkPolicy")["spec"]["egress"]
        return {port["port"] for rule in rules for port in rule["ports"] if port["protocol"] == protocol}

    def test_the_network_is_as_narrow_as_it_can_be(self):
        self.assertEqual(self.ports("smallest, with names of our own"), {53, 5353, 7443, 88, 5985, 5986})
        self.assertEqual(self.ports("smallest, with names of our own", "UDP"), {53, 5353, 88})
        self.assertEqual(self.ports("the Secret of Harness's name"), {53, 5353, 443, 7443, 88, 5985, 5986})
        self.assertEqual(self.ports("declared realms", "UDP"), {53, 5353, 88, 8888, 464})
        self.assertEqual(self.ports("a proxy of our own names"), {53, 5353, 3128, 7443, 88, 5985, 5986})
        self.assertEqual(self.ports("a proxy without a port"), {53, 5353, 443, 7443, 88, 5985, 5986})
        self.assertIn(3129, self.ports("a proxy in variables of Harness"))
        self.assertIn(3130, self.ports("a proxy in a variable of everybody"))
        self.assertIn(3131, self.ports("a proxy in a Secret, let through by hand"))
        self.assertIn(3132, self.ports("a proxy without a scheme"))
        self.assertIn(14317, self.ports("traces"))
        self.assertIn(14318, self.ports("traces by a variable"))
        # Packages are fetched by a script that runs as root, and by nothing else.
        self.assertIn(80, self.ports("a script from a value, as root"))
        self.assertIn(80, self.ports("a script in a variable"))
        self.assertNotIn(80, self.ports("a script from a Secret"))
        narrow = rendered["a narrow network"].one("NetworkPolicy")["spec"]
        open_to_all = [rule["ports"] for rule in narrow["egress"] if "to" not in rule]
        self.assertEqual([[port["port"] for port in ports] for ports in open_to_all], [[53, 53], [443], [80, 443]])
        for name, one in rendered.items():
            with self.subTest(values=name):
                for policy in one.all("NetworkPolicy"):
                    self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])
                    self.assertEqual(policy["spec"]["ingress"][0]["ports"], [{"port": "http", "protocol": "TCP"}])

    def test_pods_roll_when_what_is_read_at_the_start_changes(self):
        def annotations(**values):
            return render(CHART, on(BASIC, **values)).template["metadata"]["annotations"]

        def checksums(**values):
            return {key: value for key, value in annotations(**values).items() if key.startswith("checksum/")}

        plain = checksums()
        self.assertNotEqual(checksums(config={"slots": 3}), plain)
        self.assertNotEqual(checksums(tags=["x"]), plain)
        self.assertNotEqual(checksums(initScript="true"), checksums(initScript="false"))
        self.assertEqual(checksums(initScript=SCRIPT), checksums(initScript=SCRIPT))
        bundle = {"bundle": "-----BEGIN CERTIFICATE-----\nA"}
        self.assertNotEqual(checksums(ca=bundle), checksums(ca={"bundle": bundle["bundle"] + "B"}))
        # These are read when they are needed.
        krb5 = {"krb5Conf": KRB5_CONF}
        self.assertEqual(checksums(kerberos=krb5), checksums(kerberos={"krb5Conf": KRB5_CONF + "\n# changed\n"}))
        keytab = lambda text: {"keytabs": {"inline": {"a.keytab": text}}}  # noqa: E731
        self.assertEqual(checksums(kerberos=keytab(KEYTAB)), checksums(kerberos=keytab("AAAA")))
        rules = lambda name: {"rules": {"hosts": {"allow": [name]}}}  # noqa: E731
        self.assertEqual(checksums(policy=rules("a")), checksums(policy=rules("b")))

    def test_each_pod_has_its_own_state(self):
        stateful = rendered["volumes of a class"].workload
        self.assertEqual(stateful["kind"], "StatefulSet")
        (claim,) = stateful["spec"]["volumeClaimTemplates"]
        self.assertEqual(claim["metadata"]["name"], "state")
        self.assertEqual(claim["spec"]["storageClassName"], "fast")
        self.assertEqual(rendered["no volume"].workload["kind"], "Deployment")
        (state,) = [volume for volume in rendered["no volume"].pod["volumes"] if volume["name"] == "state"]
        self.assertEqual(state["emptyDir"], {"sizeLimit": "2Gi"})
        existing = rendered["an existing claim"].workload
        # Two pods of one volume would be two agents of one state directory.
        self.assertEqual((existing["kind"], existing["spec"]["strategy"]), ("Deployment", {"type": "Recreate"}))
        for one in rendered.values():
            variables = one.environment()
            (mount,) = [mount for mount in one.container["volumeMounts"] if mount["name"] == "state"]
            # Below the volume's own directory, which belongs to root: the agent takes other people's rights on its
            # directory away.
            self.assertTrue(variables["LICTOR_AGENT_STATE_DIR"].startswith(mount["mountPath"] + "/"))

    def test_kerberos_is_found_by_other_programs_too(self):
        self.assertEqual(
            rendered["krb5.conf from a ConfigMap"].environment()["KRB5_CONFIG"], "/etc/lictor/krb5/krb5.conf"
        )
        declared = rendered["declared realms"].environment()
        self.assertEqual(declared["KRB5_CONFIG"], declared["LICTOR_AGENT_STATE_DIR"] + "/krb5.conf")
        self.assertNotIn("KRB5_CONFIG", rendered["smallest, with names of our own"].environment())

    def test_what_cannot_be_meant_is_refused_in_words(self):
        for name, (values, words) in BAD.items():
            with self.subTest(values=name), self.assertRaises(Refused) as refused:
                render(CHART, values)
            with self.subTest(values=name):
                self.assertIn(words, str(refused.exception).replace('\\"', '"'))
                self.assertNotIn("nil pointer", str(refused.exception))
                self.assertNotIn(MARKER, str(refused.exception))

    def test_every_name_of_harness_is_taken_and_works_or_is_told_of(self):
        keys = documented.schema_keys(CHART)
        whole = {key.split(".")[0] for key in keys}
        base = {"managerEndpoint": "https://y.example", "delegateToken": "x"}
        known = {}

        def plain(values):
            if str(values) not in known:
                known[str(values)] = render(CHART, values).objects
            return known[str(values)]

        for path, value in HARNESS_NAMES.items():
            with self.subTest(name=path):
                self.assertTrue(path in keys or path in whole, path)
                start = dict(base)
                if path == "existingDelegateToken":
                    del start["delegateToken"]
                if path == "managerEndpoint":
                    start["managerEndpoint"] = "https://z.example"
                if path == "delegateToken":
                    start["delegateToken"] = "y"
                companions = COMPANIONS.get(path, {})
                before = on(start, **companions)
                section, _, leaf = path.partition(".")
                after = on(before, **{section: {**before.get(section, {}), leaf: value} if leaf else value})
                if path == "existingDelegateToken":
                    before = base
                if render(CHART, after).objects == plain(before):
                    told = notes(CHART, after)
                    self.assertTrue(f"\n  {path}: " in told or f"\n  {section}: " in told, f"it does nothing:\n{told}")

    def test_values_that_were_copied_from_harness_work(self):
        told = notes(CHART, COPIED)
        for name in (
            "accountId",
            "k8sPermissionsType",
            "upgrader",
            "javaOpts",
            "delegatePodSecurityContext",
            "delegateDockerImage",
        ):
            self.assertIn(f"\n  {name}: ", told)
        self.assertIn("does not look like one", told)
        self.assertEqual(
            rendered["all values of Harness's chart, copied"].container["image"], f"lictor-agent:{documented.version()}-root"
        )
        self.assertNotIn("These values do nothing", notes(CHART, HARNESS))

    def test_notes_warn_of_scripts_without_root(self):
        self.assertIn("runs without root", notes(CHART, on(BASIC, initScript="true")))
        self.assertNotIn("runs without root", notes(CHART, on(BASIC, initScript="true", profile="root")))

    def test_the_chart_is_of_the_version_of_the_programs(self):
        self.assertEqual(documented.about(CHART)["appVersion"], documented.version())

    def test_every_value_is_described_and_in_the_schema(self):
        described = documented.comments(CHART)
        values = documented.leaves(CHART)
        self.assertEqual([path for path in values if path not in described], [])
        self.assertEqual(documented.schema_keys(CHART) - {"global"}, set(values))

    def test_the_schema_knows_the_settings(self):
        jsonschema.Draft7Validator.check_schema(documented.schema(CHART))
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
