"""How long a stop of the agent may take. Charts, units and compose files are all held to what is said here."""

import re

from local_stack import ROOT

# Seconds after drain_grace in which the agent still stops commands on their hosts, delivers what it holds and closes. Its own
# bounds are checked against it below; the chart has the same number (lictor.afterDrain).
AFTER_DRAIN = 90


def drain_grace() -> int:
    """The agent's default in seconds, as its page of settings says."""
    row = re.search(r"^\| `drain_grace` \|.*?`(\d+)([sm])`", (ROOT / "docs" / "agent-settings.md").read_text(), flags=re.M)
    return int(row[1]) * {"s": 1, "m": 60}[row[2]]


def stop_seconds() -> int:
    """What whoever stops an agent with default settings has to wait, before killing it."""
    return drain_grace() + AFTER_DRAIN


def bounds_after_drain() -> int:
    """The sum of the agent's own bounds, in seconds, out of its code."""

    def constant(path, name):
        text = (ROOT / "agent" / "src" / path).read_text()
        (found,) = re.findall(rf"^(?:pub\(.*\) )?const {name}: Duration = Duration::from_secs\((\d+)\);", text, flags=re.M)
        return int(found)

    needed = constant("tasks/execute.rs", "STOP_LIMIT") + constant("link.rs", "FLUSH") + constant("app.rs", "CLOSE")
    return needed + 3 * constant("app.rs", "SERVER_CLOSE")
