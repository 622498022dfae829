"""The systemd units: held to the documents, rated by systemd-analyze, and run by a real systemd."""

import os
import pathlib
import re
import subprocess
import unittest

from devices import Guard
from drain import AFTER_DRAIN, stop_seconds
from local_stack import ROOT, programs

UNITS = ROOT / "deploy" / "systemd"
README = (UNITS / "README.md").read_text()
# Of 10; less is better. What keeps the units from 0 is that they are on the network and share the machine's files.
EXPOSURE = 1.5


def setUpModule():
    subprocess.run([ROOT / "scripts" / "install-packages", "systemd", "util-linux", "iproute2", "openssl", "procps"], check=True, timeout=600)


def service(name: str) -> dict[str, list[str]]:
    """The values of each key of [Service], in order."""
    values: dict[str, list[str]] = {}
    text = (UNITS / f"{name}.service").read_text()
    for line in text.split("[Service]")[1].split("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values


def exit_codes(page: str) -> dict[int, str]:
    section = (ROOT / "docs" / page).read_text().split("## Exit codes")[1]
    return {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", section, flags=re.M)}


class Units(unittest.TestCase):
    def test_a_stop_waits_longer_than_the_drain(self):
        self.assertGreaterEqual(int(service("lictor-agent")["TimeoutStopSec"][0]), stop_seconds())
        # The page tells how to lengthen both.
        text = README.split("**A longer drain.**")[1].split("\n- ")[0]
        self.assertIn(f"by {AFTER_DRAIN} seconds", text)
        minutes, stop = re.search(r"`drain_grace: (\d+)m`.*?TimeoutStopSec=(\d+)", text, flags=re.S).groups()
        self.assertEqual(int(stop), int(minutes) * 60 + AFTER_DRAIN)

    def test_exit_codes_that_end_it_are_those_of_the_documents(self):
        agent, control_plane = exit_codes("agent-settings.md"), exit_codes("control-plane-settings.md")
        for name, codes, final in (("lictor-agent", agent, {2, 64, 65, 66, 67, 69}), ("lictor-control-plane", control_plane, {2, 78})):
            prevented = {int(code) for code in service(name)["RestartPreventExitStatus"][0].split()}
            self.assertEqual(prevented, final)
            self.assertLessEqual(prevented, set(codes))
        # A new code has to be thought about here: is there sense in another start?
        self.assertEqual(set(agent), {0, 1, 2, 64, 65, 66, 67, 68, 69, 70, 72})
        self.assertEqual(set(control_plane), {0, 1, 2, 78})

    def test_the_page_names_what_the_units_use(self):
        for name in ("lictor-agent", "lictor-control-plane"):
            unit = service(name)
            program, command, flag, settings = unit["ExecStart"][0].split()
            self.assertEqual((command, flag), ("run", "--config"))
            secret = unit["LoadCredential"][0].split(":")[1]
            for path in (program, settings, secret, f"/var/lib/{unit['StateDirectory'][0]}"):
                self.assertIn(f"`{path}`", README)
            # Credentials are named by the settings that the documents list.
            page = "agent-settings.md" if name == "lictor-agent" else "control-plane-settings.md"
            for setting in unit["Environment"]:
                key = re.sub(r"^LICTOR_(AGENT|CONTROL_PLANE)_", "", setting.split("=")[0]).lower()
                self.assertIn(f"| `{key}` |", (ROOT / "docs" / page).read_text())

    def test_systemd_rates_them_as_safe(self):
        for name in ("lictor-agent", "lictor-control-plane"):
            # In tenths, as systemd 252 compares.
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={round(EXPOSURE * 10)}",
                                   UNITS / f"{name}.service"], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stdout)
            rating = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[1])
            self.assertLessEqual(rating, EXPOSURE)
            self.assertIn(f"{rating}", README)

    def test_they_run_under_systemd(self):
        self.addCleanup(Guard().check)
        here = pathlib.Path(__file__).parent
        done = subprocess.run([here / "tools" / "with-systemd", here / "systemd" / "prepare", here / "systemd" / "command"],
                              env=os.environ | {"LICTOR_BIN": str(programs())}, capture_output=True, text=True, timeout=400, check=False,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(len(re.findall(r"^ok: ", done.stdout, flags=re.M)), 12, done.stdout)


if __name__ == "__main__":
    unittest.main()
