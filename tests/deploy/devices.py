"""What this machine's devices are like, to be compared before and after what runs as root in namespaces.

Tests make machines and pods over this machine's kernel. None of them may change what others on it see in /dev.
"""

import os
import stat

NODES = ("null", "zero", "full", "random", "urandom", "tty")
# What a systemd that believes /dev to be its own puts there.
MADE = ("log", "hugepages", "mqueue", "console", "initctl")


class Guard:
    """Compares this machine's devices with those of the moment in which it was made."""

    def __init__(self):
        self._before = self._now()

    @staticmethod
    def _now():
        found = {name: os.path.lexists(f"/dev/{name}") for name in MADE}
        for name in NODES:
            status = os.stat(f"/dev/{name}")
            found[name] = (stat.filemode(status.st_mode), status.st_rdev, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns)
        return found

    def check(self):
        now = self._now()
        changed = [f"{name}: {self._before[name]}, now {now[name]}" for name in now if now[name] != self._before[name]]
        if changed:
            raise AssertionError("this machine's /dev was changed: " + "; ".join(changed))
