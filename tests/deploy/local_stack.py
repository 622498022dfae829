"""A control plane, an agent and a simulated Windows host as processes on loopback, with work done through them.

For tests that need real metrics. Everything binds 127.0.0.1 on ports that the system picks, lies in one temporary directory,
and is stopped by its own process id. Programs come from LICTOR_BIN, else from the workspace's debug build.
"""

import json
import os
import pathlib
import secrets
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 120
# Requests go to loopback, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def programs() -> pathlib.Path:
    """The directory with the programs, all of which are there."""
    if chosen := os.environ.get("LICTOR_BIN"):
        directory = pathlib.Path(chosen)
    else:
        metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=ROOT,
                                  check=True, capture_output=True, timeout=120).stdout
        directory = pathlib.Path(json.loads(metadata)["target_directory"]) / "debug"
    for name in ("lictor", "lictor-agent", "lictor-control-plane", "winsim"):
        if not (directory / name).is_file():
            raise AssertionError(f"{directory / name} is missing: run `cargo build --workspace --bins`, or set LICTOR_BIN")
    return directory


def get(url: str) -> str:
    with OPENER.open(url, timeout=30) as answer:
        return answer.read().decode()


def eventually(what: str, check, seconds: float = START_SECONDS):
    """Calls `check` until it returns something true, which is returned."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := check():
                return result
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.2)


class Stack:
    """The parts, from `start` to `stop`."""

    def __init__(self):
        self.bin = programs()
        self._directory = tempfile.TemporaryDirectory(prefix="lictor-deploy-")
        self.work = pathlib.Path(self._directory.name)
        self.processes: list[subprocess.Popen] = []
        # Settings of whoever runs the test must not reach the programs.
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("LICTOR_", "DELEGATE_", "KRB5")) and name != "INIT_SCRIPT"}

    def start(self):
        (self.work / "password").write_text(secrets.token_hex(12))
        self.spawn("winsim", [self.bin / "winsim", "--user", "CORP\\alice", "--password-file", self.work / "password",
                              "--ready-file", self.work / "winsim.ready"])
        self.spawn("control-plane", [self.bin / "lictor-control-plane", "run", "--ready-file", self.work / "control-plane.ready"],
                   LICTOR_CONTROL_PLANE_LISTEN="127.0.0.1:0", LICTOR_CONTROL_PLANE_HTTP_LISTEN="127.0.0.1:0",
                   LICTOR_CONTROL_PLANE_STATE_DIR=str(self.work / "control-plane"))
        windows, control_plane = self.ready("winsim"), self.ready("control-plane")
        self.windows_port = windows["address"].rsplit(":", 1)[1]
        self.control_plane_http = control_plane["http_address"]
        self.server = f"https://127.0.0.1:{control_plane['address'].rsplit(':', 1)[1]}"
        (self.work / "join-token").write_text(self.lictor("token", "create", "--max-uses", "1"))
        self.spawn("agent", [self.bin / "lictor-agent", "run", "--ready-file", self.work / "agent.ready"],
                   LICTOR_AGENT_CONTROL_PLANE=self.server, LICTOR_AGENT_JOIN_TOKEN_FILE=str(self.work / "join-token"),
                   LICTOR_AGENT_STATE_DIR=str(self.work / "agent"), LICTOR_AGENT_HTTP_LISTEN="127.0.0.1:0",
                   LICTOR_AGENT_NAME="deploy-agent")
        self.agent_http = self.ready("agent")["http_address"]
        self.lictor("credential", "put", "win", "--user", "CORP\\alice", "--password-file", self.work / "password", "--scheme", "http",
                    "--port", self.windows_port, "--auth", "negotiate")
        return self

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._directory.cleanup()

    def spawn(self, name: str, command: list, **environment: str) -> subprocess.Popen:
        with open(self.work / f"{name}.log", "wb") as log:
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=self.environment | environment, cwd=self.work)
        process.name = name
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.work / f"{name}.log").read_text(errors="replace")[-3000:]

    def ready(self, name: str) -> dict:
        def look():
            process = next(p for p in self.processes if p.name == name)
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
            return json.loads((self.work / f"{name}.ready").read_text())
        return eventually(f"{name} getting ready", look)

    def lictor(self, *arguments, expect: int = 0) -> str:
        environment = {"LICTOR_SERVER": self.server, "LICTOR_CA": str(self.work / "control-plane" / "ca.pem"),
                       "LICTOR_TOKEN_FILE": str(self.work / "control-plane" / "admin-token")}
        done = subprocess.run([str(word) for word in (self.bin / "lictor", *arguments)], env=self.environment | environment,
                              capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != expect:
            raise AssertionError(f"lictor {arguments} ended with {done.returncode}, not {expect}: {done.stderr}")
        return done.stdout

    def submit(self, *arguments, expect: int = 0) -> str:
        return self.lictor("task", "submit", "--host", "127.0.0.1", "--credential", "win", "--watch", *arguments, expect=expect)
