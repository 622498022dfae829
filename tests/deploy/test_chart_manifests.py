"""The plain manifests under deploy/ are what the charts make, and as good.

`LICTOR_WRITE_DOCS=1` writes them.
"""

import os
import unittest

import yaml

from chart_checks import judges, pod_security
from chart_checks.manifests import MANIFESTS, NAMESPACE, TOKEN, manifest, path
from chart_checks.rendering import Rendered


def setUpModule():
    if os.environ.get("LICTOR_WRITE_DOCS"):
        for name in MANIFESTS:
            path(name).parent.mkdir(exist_ok=True)
            path(name).write_text(manifest(name))


class Manifests(unittest.TestCase):
    maxDiff = None

    def test_they_are_made_of_the_charts(self):
        for name in MANIFESTS:
            with self.subTest(manifest=name):
                self.assertEqual(path(name).read_text(), manifest(name), "run with LICTOR_WRITE_DOCS=1")

    def test_kubernetes_takes_them(self):
        for name in MANIFESTS:
            with self.subTest(manifest=name):
                one = Rendered(name, path(name).read_text())
                # `kubectl delete -f` would take everything in it along.
                self.assertEqual(one.all("Namespace"), [])
                self.assertEqual(pod_security.restricted(one.template), [])
                for thing in one.objects:
                    self.assertEqual(judges.kubernetes(thing), [])
                    self.assertEqual(thing["metadata"]["namespace"], NAMESPACE)

    def test_nothing_of_helm_is_left(self):
        for name in MANIFESTS:
            text = path(name).read_text()
            for word in ("helm.sh", "managed-by", "checksum/", "# Source"):
                self.assertNotIn(word, text)

    def test_the_programs_take_their_settings(self):
        agent = Rendered("delegate.yaml", path("delegate.yaml").read_text())
        secret = agent.one("Secret")
        self.assertEqual(secret["stringData"], {"token": TOKEN})
        agent.objects.remove(secret)
        # A token is read when one is needed, so that a placeholder is as good as any here.
        self.assertTrue(judges.agent_settings(agent, {secret["metadata"]["name"]: secret["stringData"]})["valid"])
        control_plane = Rendered("control-plane.yaml", path("control-plane.yaml").read_text())
        code, out, error = judges.check_config(control_plane, {}, "lictor-control-plane", "LICTOR_CONTROL_PLANE_")
        self.assertEqual(code, 0, out + error)

    def test_the_agents_find_the_control_plane(self):
        agent = Rendered("delegate.yaml", path("delegate.yaml").read_text())
        settings = yaml.safe_load(agent.one("ConfigMap")["data"]["agent.yaml"])
        host, port = settings["control_plane"].removeprefix("https://").rsplit(":", 1)
        control_plane = Rendered("control-plane.yaml", path("control-plane.yaml").read_text())
        self.assertIn(host, yaml.safe_load(control_plane.one("ConfigMap")["data"]["control-plane.yaml"])["names"])
        service = control_plane.one("Service", host.split(".")[0])
        self.assertEqual(service["spec"]["ports"][0]["port"], int(port))


if __name__ == "__main__":
    unittest.main()
