"""ansible-inventory for many inventories, and the variables that Ansible and pywinrm know.

Reads one JSON object from standard input, {"cases": [{"sources": [...], "playbook": path or null}, ...]}, and prints one:
{"version", "inventories": [what `ansible-inventory --list` prints, or {"error": text}], "plugin": names of variables of the
connection plugin winrm, "protocol": keywords of winrm.Protocol, or null without pywinrm}. Each case runs in a process of its own,
forked after the imports, because Ansible keeps what it read.
"""

import json
import os
import sys
import tempfile

HOME = tempfile.TemporaryDirectory()
# Nobody's settings but the defaults.
CONFIG = os.path.join(HOME.name, "ansible.cfg")
open(CONFIG, "w", encoding="utf-8").close()
os.environ.update(
    HOME=HOME.name,
    ANSIBLE_HOME=HOME.name,
    ANSIBLE_CONFIG=CONFIG,
    ANSIBLE_DEPRECATION_WARNINGS="false",
    ANSIBLE_DEVEL_WARNING="false",
    ANSIBLE_NOCOLOR="true",
    ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true",
)
os.environ.setdefault("LC_ALL", "C.UTF-8")

import yaml  # noqa: E402
from ansible import release  # noqa: E402
from ansible.cli.inventory import InventoryCLI  # noqa: E402
from ansible.plugins.connection import winrm as plugin  # noqa: E402


def listing(case):
    """What `ansible-inventory --list` prints for a case."""
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "list.json")
        arguments = ["ansible-inventory", "--list", "--output", output]
        for source in case["sources"]:
            arguments += ["-i", source]
        if case["playbook"]:
            arguments += ["--playbook-dir", case["playbook"]]
        child = os.fork()
        if child == 0:
            log = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            status = 1
            try:
                InventoryCLI(arguments).run()
            except SystemExit as exit:
                status = exit.code or 0
            except BaseException as error:  # The parent tells it.
                print(error, flush=True)
            sys.stdout.flush()
            os._exit(status)
        os.waitpid(child, 0)
        if os.path.exists(output):
            with open(output, encoding="utf-8") as file:
                return json.load(file)
        with open(os.path.join(directory, "log"), encoding="utf-8") as file:
            return {"error": file.read()}


def plugin_variables():
    """Names of the variables that the connection plugin documents."""
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    return sorted(variable["name"] for option in options.values() for variable in option.get("vars", []))


def protocol_keywords():
    """Keywords of winrm.Protocol."""
    try:
        from inspect import signature

        from winrm.protocol import Protocol
    except ImportError:
        return None
    return sorted(set(signature(Protocol.__init__).parameters) - {"self"})


def main():
    cases = json.load(sys.stdin)["cases"]
    answer = {
        "version": release.__version__,
        "inventories": [listing(case) for case in cases],
        "plugin": plugin_variables(),
        "protocol": protocol_keywords(),
    }
    json.dump(answer, sys.stdout)


main()
