"""The tools of these tests: what they make has devices of its own."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from devices import NODES, Guard
from pods import REPOSITORY, TOOLS, Space

# Spoils the devices that it sees, unless they are this machine's.
SPOIL = """#!/usr/bin/env bash
set -euo pipefail
for node in NODES; do
  if [[ $(stat --format=%d "/dev/$node") == DEVICE ]]; then echo "/dev/$node is the machine's" >&2; exit 3; fi
done
for node in NODES; do chmod 600 "/dev/$node"; done
mkdir -p /dev/mqueue /dev/hugepages /dev/log
echo spoilt
""".replace("NODES", " ".join(NODES)).replace("DEVICE", str(os.stat("/dev/null").st_dev))


def setUpModule():
    subprocess.run([REPOSITORY / "scripts" / "install-packages", "systemd", "util-linux", "iproute2"], check=True, timeout=600)


class Devices(unittest.TestCase):
    """Who changes devices in what was made by a tool does not change this machine's."""

    def setUp(self):
        guard = Guard()
        # After all else.
        self.addCleanup(guard.check)
        work = tempfile.TemporaryDirectory(prefix="lictor-tools-")
        self.addCleanup(work.cleanup)
        self.spoil = pathlib.Path(work.name, "spoil")
        self.spoil.write_text(SPOIL)
        self.spoil.chmod(0o755)
        self.nothing = pathlib.Path(work.name, "nothing")
        self.nothing.write_text("#!/bin/sh\n")
        self.nothing.chmod(0o755)

    def test_of_podman(self):
        space = Space()
        self.addCleanup(space.close)
        done = subprocess.run(["nsenter", "--target", str(space.init), "--mount", "--pid", "--", "bash", self.spoil],
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout), (0, "spoilt\n"), done.stderr)

    def test_of_with_systemd(self):
        done = subprocess.run([TOOLS / "with-systemd", self.nothing, self.spoil], capture_output=True, text=True, timeout=400,
                              check=False, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout), (0, "spoilt\n"), done.stderr)


if __name__ == "__main__":
    unittest.main()
