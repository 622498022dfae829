"""pypsrp's WinRS shell against a simulated host in trouble: quotas, faults, 503 and restarts."""

from pypsrp.exceptions import WinRMTransportError, WSManFaultError
from pypsrp.shell import Process, SignalCode, WinRS
from pypsrp.wsman import WSMan

import checks
import trouble

arguments = checks.arguments("pypsrp")


def connection():
    return WSMan(
        arguments.host,
        port=arguments.port,
        username=arguments.user,
        password=arguments.password,
        ssl=False,
        auth=arguments.auth,
        encryption="auto",
        operation_timeout=20,
        read_timeout=50,
        reconnection_retries=0,
        no_proxy=True,
    )


def say(shell, word):
    process = Process(shell, "echo", [word])
    process.invoke()
    process.signal(SignalCode.TERMINATE)
    return process.stdout


def works():
    with connection() as wsman, WinRS(wsman, codepage=65001) as shell:
        checks.equal(say(shell, "again"), b"again\r\n")


def fault(action, code):
    error = trouble.failure(action)
    if not isinstance(error, WSManFaultError):
        raise AssertionError(f"no fault: {error!r}") from error
    checks.equal(error.code, code)


def shell_quota():
    trouble.order({"quotas": {"max_shells_per_user": 1}})
    with connection() as wsman, WinRS(wsman):
        fault(works, 2150859173)
    trouble.order({"quotas": {"max_shells_per_user": 30}})
    works()


def operation_quota():
    trouble.order({"quotas": {"max_operations_per_user": 2}})
    with connection() as wsman, WinRS(wsman, codepage=65001) as shell:
        say(shell, "1")
        say(shell, "2")
        fault(lambda: say(shell, "3"), 2150859174)
    # Only the end of the shell gives operations back.
    works()
    trouble.order({"quotas": {"max_operations_per_user": 1500}})


def lost_shell():
    with connection() as wsman, WinRS(wsman) as shell:
        trouble.order({"fault": {"operation": "Command", "code": 2150858843}})
        fault(lambda: say(shell, "1"), 2150858843)
        say(shell, "2")


def unavailable():
    checks.equal(trouble.unavailable(works, WinRMTransportError).code, 503)
    works()


def restarts():
    for restart in [{"reboot": {}}, {"reboot": {"cut": "reset"}}, {"restart-service": {}}]:
        wsman = connection()
        shell = WinRS(wsman)
        shell.open()
        trouble.order(restart)
        trouble.failure(lambda: say(shell, "1"))
        works()


results = checks.Checks("pypsrp")
for check in [works, shell_quota, operation_quota, lost_shell, unavailable, restarts]:
    results.run(check.__name__, check)
results.finish()
