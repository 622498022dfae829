"""Renders charts with helm, and finds its way about in what comes out.

Asks no cluster. Used by every test of the charts.
"""

import functools
import json
import os
import pathlib
import subprocess
import tempfile

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
CHARTS = REPOSITORY / "helm"
RELEASE, NAMESPACE = "trial", "windows"
DEADLINE = 120


@functools.cache
def tools():
    """The directory of helm and kubectl."""
    script = REPOSITORY / "tests/deploy/tools/helm"
    found = subprocess.run(
        [script], check=True, stdout=subprocess.PIPE, text=True, timeout=900, stdin=subprocess.DEVNULL
    )
    return pathlib.Path(found.stdout.strip())


def helm(*arguments, values=None):
    """What helm does: exit code, standard output, standard error."""
    with tempfile.TemporaryDirectory(prefix="lictor-chart-") as scratch:
        # Nobody's own settings and plugins.
        environment = {**os.environ, "HELM_CONFIG_HOME": scratch, "HELM_CACHE_HOME": scratch, "HELM_DATA_HOME": scratch}
        environment["KUBECONFIG"] = os.path.join(scratch, "none")
        command = [tools() / "helm", *arguments]
        if values is not None:
            path = pathlib.Path(scratch, "values.yaml")
            # JSON is YAML, and leaves no doubt of what `y` is.
            path.write_text(json.dumps(values))
            command += ["--values", path]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, env=environment, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout, done.stderr


class Rendered:
    """Objects of a chart under some values."""

    def __init__(self, chart, text):
        self.chart = chart
        self.text = text
        self.objects = [document for document in yaml.safe_load_all(text) if document]

    def all(self, kind):
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind, name=None):
        found = [one for one in self.all(kind) if name in (None, one["metadata"]["name"])]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} objects of kind {kind} and name {name}")
        return found[0]

    @property
    def workload(self):
        (found,) = [one for one in self.objects if one["kind"] in ("StatefulSet", "Deployment")]
        return found

    @property
    def template(self):
        return self.workload["spec"]["template"]

    @property
    def pod(self):
        return self.template["spec"]

    @property
    def container(self):
        """Our own."""
        return self.pod["containers"][0]

    def environment(self):
        """Variables of our container that have a value, and those that come of the pod."""
        found = {}
        for variable in self.container.get("env", []):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            elif variable["valueFrom"].get("fieldRef", {}).get("fieldPath") == "metadata.name":
                found[variable["name"]] = self.workload["metadata"]["name"] + "-0"
        return {name: value.replace("$(LICTOR_POD_NAME)", found.get("LICTOR_POD_NAME", "")) for name, value in found.items()}


class Refused(Exception):
    """Helm says no; holds what it says."""


def render(chart, values, *arguments):
    code, out, error = helm("template", RELEASE, CHARTS / chart, "--namespace", NAMESPACE, *arguments, values=values)
    if code != 0:
        raise Refused(error)
    return Rendered(chart, out)


def notes(chart, values):
    """What somebody reads after an installation."""
    code, out, error = helm(
        "install", RELEASE, CHARTS / chart, "--namespace", NAMESPACE, "--dry-run=client", values=values
    )
    if code != 0:
        raise Refused(error)
    return out.split("\nNOTES:\n", 1)[1]


def lint(chart, values):
    return helm("lint", "--strict", CHARTS / chart, values=values)
