"""How long a stop of the agent may take. Charts, units and compose files are all held to what is said here."""

import re

from local_stack import ROOT

# Seconds after drain_grace in which the agent still stops commands on their hosts, delivers what it holds and closes. Its own
# bounds are checked against it below; the chart has the same number (lictor.afterDrain).
AFTER_DRAIN = 100


def drain_grace() -> int:
    """The agent's default in seconds, as its page of settings says."""
    row = re.search(r"^\| `drain_grace` \|.*?`(\d+)([sm])`", (ROOT / "docs" / "agent-settings.md").read_text(), flags=re.M)
    return int(row[1]) * {"s": 1, "m": 60}[row[2]]


def stop_seconds() -> int:
    """What whoever stops an agent with default settings has to wait, before killing it."""
    return drain_grace() + AFTER_DRAIN


def bounds_after_drain() -> int:
    """The sum of the agent's own bounds, in seconds, out of its code."""

    def text(path):
        return (ROOT / path).read_text()

    def constant(path, name):
        pattern = rf"^(?:pub\(.*\) )?const {name}: (?:std::time::)?Duration = (?:std::time::)?Duration::from_secs\((\d+)\);"
        (found,) = re.findall(pattern, text(path), flags=re.M)
        return int(found)

    # Commands are stopped, what is held is delivered, shells are deleted.
    needed = constant("agent/src/tasks/execute.rs", "STOP_LIMIT") + constant("agent/src/link.rs", "FLUSH")
    needed += constant("agent/src/app.rs", "CLOSE")
    # Then one helper after the other ends.
    closes = text("agent/src/app.rs").count("timeout(SERVER_CLOSE,")
    assert closes >= 4, closes
    needed += closes * constant("agent/src/app.rs", "SERVER_CLOSE")
    # Spans are exported, the runtime ends, and what a bootstrap script left is ended.
    needed += constant("telemetry/src/export.rs", "FLUSH") + constant("agent/src/cli.rs", "LAST_WAIT")
    return needed + constant("agent/src/bootstrap/family.rs", "GRACE") + constant("agent/src/bootstrap/family.rs", "INSIST")
