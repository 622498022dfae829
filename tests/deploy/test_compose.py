"""The trial of deploy/compose: read by Docker Compose itself, and run by podman-compose with the images of the Dockerfile.

Containers share the network of the test's space, which is loopback alone, in place of Compose's own network; and podman has no
timers without systemd, so that the health checks of the file are run by the test. All else is as the file says."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import unittest

import yaml

from devices import Guard
from drain import stop_seconds
from pods import CACHE, REPOSITORY, TOOLS, Space, eventually, get, run

COMPOSE = REPOSITORY / "deploy" / "compose"
FILE = COMPOSE / "docker-compose.yaml"
BIN = pathlib.Path(sys.prefix) / "bin"
IMAGES = ("agent", "control-plane", "winsim")


class Text(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Docker Compose's own program: it reads, checks against the specification's schema, and talks to no daemon.
        text = run([BIN / "docker-compose", "--file", FILE, "--profile", "tools", "config", "--format", "json"]).stdout
        cls.services = json.loads(text)["services"]

    def test_a_mistake_is_noticed(self):
        with tempfile.TemporaryDirectory(prefix="lictor-compose-") as work:
            wrong = pathlib.Path(work, "docker-compose.yaml")
            wrong.write_text(FILE.read_text().replace("read_only:", "readonly:"))
            done = run([BIN / "docker-compose", "--file", wrong, "config", "--quiet"], check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("readonly", done.stderr)

    def test_every_service_is_hardened(self):
        self.assertEqual(set(self.services), {"control-plane", "setup", "winsim", "agent", "lictor"})
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertEqual(service["user"], "10001:0")
                self.assertNotIn("privileged", service)
                self.assertNotIn("cap_add", service)
                for port in service.get("ports", []):
                    self.assertEqual(port["host_ip"], "127.0.0.1")
                for volume in service.get("volumes", []):
                    self.assertEqual(volume["type"], "volume")

    def test_images_are_those_of_the_dockerfile(self):
        targets = set(re.findall(r"^FROM \S+ AS (\S+)", (REPOSITORY / "Dockerfile").read_text(), flags=re.M))
        for name, service in self.services.items():
            self.assertIn(service["build"]["target"], targets, name)
            self.assertEqual(service["image"], f"lictor-{service['build']['target']}")
            self.assertEqual(pathlib.Path(service["build"]["context"]).resolve(), REPOSITORY)

    def test_a_stop_waits_longer_than_the_drain(self):
        period = yaml.safe_load(FILE.read_text())["services"]["agent"]["stop_grace_period"]
        self.assertGreaterEqual(int(period.removesuffix("s")), stop_seconds())

    def test_no_secret_stands_in_it(self):
        for service in self.services.values():
            for name in service.get("environment", {}):
                self.assertNotRegex(name, r"(?i)(password|secret|key|token)$")

    def test_the_page_types_what_there_is(self):
        page = (COMPOSE / "README.md").read_text()
        for service in re.findall(r"docker compose (?:run --rm|logs|exec) (?:-e LICTOR_PASSWORD )?(\S+)", page):
            self.assertIn(service, self.services)


class AtWork(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(Guard().check)
        cls.space = Space()
        cls.addClassCleanup(cls.space.close)
        work = tempfile.TemporaryDirectory(prefix="lictor-compose-")
        cls.addClassCleanup(work.cleanup)
        for name in IMAGES:
            cls.space.podman("tag", cls.space.load(name), f"localhost/lictor-{name}:latest")
        services = {name: {"network_mode": "host", "extra_hosts": ["control-plane:127.0.0.1", "winsim:127.0.0.1"]}
                    for name in yaml.safe_load(FILE.read_text())["services"]}
        cls.override = pathlib.Path(work.name, "override.yaml")
        cls.override.write_text(yaml.safe_dump({"services": services}))
        # podman 5.4 starts no container that requires one which requires another (it loses the second from its graph).
        # podman-compose waits for what a service depends on anyway.
        cls.podman = pathlib.Path(work.name, "podman")
        cls.podman.write_text('#!/usr/bin/env bash\narguments=()\n'
                              'for word in "$@"; do [[ $word == --requires=* ]] || arguments+=("$word"); done\n'
                              f'exec {TOOLS / "podman"} "${{arguments[@]}}"\n')
        cls.podman.chmod(0o755)
        cls.stop = threading.Event()
        cls.checker = threading.Thread(target=cls.check_health, daemon=True)
        cls.checker.start()
        cls.addClassCleanup(cls.checker.join, 60)
        cls.addClassCleanup(cls.stop.set)

    @classmethod
    def check_health(cls):
        """What the timers of Docker do: runs the health check of every container that runs and has one."""
        while not cls.stop.wait(0.5):
            for name in cls.space.podman("ps", "--format", "{{.Names}}", check=False).stdout.split():
                cls.space.podman("healthcheck", "run", name, check=False)

    def compose(self, *arguments, expect=0):
        environment = {**os.environ, "LICTOR_PODMAN_SPACE": str(self.space.init), "LICTOR_DEPLOY_CACHE": str(CACHE)}
        done = subprocess.run([BIN / "podman-compose", "--podman-path", self.podman, "--file", FILE, "--file", self.override,
                               *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
                              stdin=subprocess.DEVNULL)
        if done.returncode != expect:
            logs = "".join(self.space.podman("logs", name, check=False).stdout + self.space.podman("logs", name, check=False).stderr
                           for name in self.space.podman("ps", "--all", "--format", "{{.Names}}").stdout.split())
            raise AssertionError(f"podman-compose {arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{logs}")
        return done.stdout

    def lictor(self, *arguments, expect=0):
        # Docker Compose's `run` implies the profile of what it is asked for.
        return self.compose("--profile", "tools", "run", "--rm", "-T", "lictor", *arguments, expect=expect)

    def test_up_is_all_it_takes(self):
        self.compose("up", "--detach", "--no-build")
        eventually("the agent getting ready", lambda: get(3460, "/ready")[0] == 200)
        self.assertIn("trial", self.lictor("agent", "list"))
        rungs = self.lictor("task", "submit", "--host", "winsim", "--credential", "win", "--test", "--watch")
        self.assertRegex(rungs, r"(?m)^run +passed")
        self.assertIn("WINSIM", self.lictor("task", "submit", "--host", "winsim", "--credential", "win", "--watch", "--", "hostname"))
        self.lictor("task", "submit", "--host", "winsim", "--credential", "win", "--watch", "--", "exit 7", expect=7)

        # The health checks of the file were asked, and say so.
        for service in ("control-plane", "winsim", "agent"):
            eventually(f"{service} healthy", lambda service=service: self.space.podman(
                "container", "inspect", "--format", "{{.State.Health.Status}}", f"lictor_{service}_1").stdout.strip() == "healthy")
            status = self.space.podman("exec", f"lictor_{service}_1", "cat", "/proc/1/status").stdout
            for line in ("Uid:\t10001\t", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
                self.assertIn(line, status, service)
            self.assertNotEqual(self.space.podman("exec", f"lictor_{service}_1", "touch", "/etc/x", check=False).returncode, 0)
        # The password is in the volume, and no environment or command line of a container shows it.
        password = self.space.podman("exec", "lictor_winsim_1", "cat", "/handover/password").stdout.strip()
        self.assertGreater(len(password), 20)
        for name in self.space.podman("ps", "--all", "--format", "{{.Names}}").stdout.split():
            self.assertNotIn(password, self.space.podman("container", "inspect", name).stdout)

        # Down and up again: the agent keeps its identity, the password stays, a new token is made and not needed.
        agent = json.loads(self.lictor("agent", "list", "--output", "json"))["agents"][0]
        self.compose("down")
        self.compose("up", "--detach", "--no-build")
        eventually("the agent getting ready again", lambda: get(3460, "/ready")[0] == 200)
        again = json.loads(self.lictor("agent", "list", "--output", "json"))["agents"]
        self.assertEqual([(a["agent_id"], a["name"]) for a in again], [(agent["agent_id"], agent["name"])])
        self.lictor("task", "submit", "--host", "winsim", "--credential", "win", "--watch", "--", "hostname")
        self.compose("down", "--volumes")


if __name__ == "__main__":
    unittest.main()
