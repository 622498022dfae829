"""pywinrm against a simulated host in trouble: quotas in both forms, faults, 503 and restarts."""

from winrm.exceptions import WinRMTransportError, WSManFaultError
from winrm.protocol import Protocol

import checks
import trouble

arguments = checks.arguments("pywinrm")


def protocol():
    return Protocol(
        endpoint=f"http://{arguments.host}:{arguments.port}/wsman",
        transport=arguments.auth,
        username=arguments.user,
        password=arguments.password,
        message_encryption="auto",
        operation_timeout_sec=20,
        read_timeout_sec=50,
    )


def say(client, shell, word):
    command_id = client.run_command(shell, "echo", [word])
    try:
        return client.get_command_output(shell, command_id)[0]
    finally:
        client.cleanup_command(shell, command_id)


def works():
    client = protocol()
    shell = client.open_shell(codepage=65001)
    try:
        checks.equal(say(client, shell, "again"), b"again\r\n")
    finally:
        client.close_shell(shell)


def fault(action):
    error = trouble.failure(action)
    if not isinstance(error, WSManFaultError):
        raise AssertionError(f"no fault: {error!r}") from error
    return error


def shell_quota():
    trouble.order({"quotas": {"max_shells_per_user": 1}})
    client = protocol()
    shell = client.open_shell()
    error = fault(works)
    checks.equal((error.wsman_fault_code, error.wmierror_code, error.fault_subcode), (2150859173, None, "w:QuotaLimit"))
    trouble.order({"fault-style": {"form": "wmi-error"}})
    error = fault(works)
    checks.equal((error.wsman_fault_code, error.wmierror_code, error.fault_subcode), (None, 2150859173, "w:InternalError"))
    client.close_shell(shell)
    trouble.order({"fault-style": {}})
    trouble.order({"quotas": {"max_shells_per_user": 30}})
    works()


def operation_quota():
    trouble.order({"quotas": {"max_operations_per_user": 1}})
    client = protocol()
    shell = client.open_shell(codepage=65001)
    say(client, shell, "1")
    checks.equal(fault(lambda: say(client, shell, "2")).wsman_fault_code, 2150859174)
    client.close_shell(shell)
    works()
    trouble.order({"quotas": {"max_operations_per_user": 1500}})


def unavailable():
    checks.equal(trouble.unavailable(works, WinRMTransportError).code, 503)
    works()


def restarts():
    for restart in [{"reboot": {}}, {"reboot": {"cut": "reset"}}, {"restart-service": {}}]:
        client = protocol()
        shell = client.open_shell()
        trouble.order(restart)
        trouble.failure(lambda: say(client, shell, "1"))
        works()


results = checks.Checks("pywinrm")
for check in [works, shell_quota, operation_quota, unavailable, restarts]:
    results.run(check.__name__, check)
results.finish()
