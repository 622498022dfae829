"""pywinrm against a WinRM host."""

import winrm
from winrm.exceptions import InvalidCredentialsError
from winrm.protocol import Protocol

import checks

arguments = checks.arguments("pywinrm")


def protocol(password=arguments.password, operation_timeout=20):
    return Protocol(
        endpoint=f"{arguments.scheme}://{arguments.host}:{arguments.port}/wsman",
        transport=arguments.auth,
        username=arguments.user,
        password=password,
        ca_trust_path=arguments.ca if arguments.ca else "legacy_requests",
        server_cert_validation="validate",
        message_encryption=arguments.encryption,
        kerberos_delegation=arguments.delegate,
        operation_timeout_sec=operation_timeout,
        read_timeout_sec=operation_timeout + 30,
    )


def run(command, args=(), stdin=None, operation_timeout=20, codepage=65001):
    client = protocol(operation_timeout=operation_timeout)
    shell = client.open_shell(codepage=codepage)
    try:
        command_id = client.run_command(shell, command, args, console_mode_stdin=stdin is None)
        try:
            if stdin is not None:
                client.send_command_input(shell, command_id, stdin, end=True)
            return client.get_command_output(shell, command_id)
        finally:
            client.cleanup_command(shell, command_id)
    finally:
        client.close_shell(shell)


def runs():
    checks.equal(run("echo", ["hello", "world"]), (b"hello world\r\n", b"", 0))


def argument_quoting():
    checks.equal(run("sim.exe", ["argv", '"a b"', "c"])[0], b'["a b","c"]\r\n')


def exit_codes():
    for code in [0, 5, 37]:
        checks.equal(run("sim.exe", ["exit", str(code)])[2], code)
    checks.equal(run("cmd", ["/c", "exit", "37"])[2], 37)


def stderr():
    checks.equal(run("sim.exe", ["stderr", "something", "wrong"]), (b"", b"something wrong\r\n", 0))


def stdin():
    data = checks.expected_bytes(100_000)
    checks.equal(checks.digest(run("sim.exe", ["stdin"], stdin=data)[0]), checks.digest(data))


def large_output():
    out, err, code = run("sim.exe", ["bytes", str(checks.MIB)])
    checks.equal((checks.digest(out), err, code), (checks.digest(checks.expected_bytes(checks.MIB)), b"", 0))


def non_ascii():
    checks.equal(run("echo", [checks.NON_ASCII])[0].decode("utf-8"), checks.NON_ASCII + "\r\n")


def longer_than_operation_timeout():
    checks.equal(run("sim.exe", ["sleep", "3500"], operation_timeout=1), (b"", b"", 0))
    checks.equal(run("sim.exe", ["lines", "3", "1500"], operation_timeout=1)[0], b"line 1\r\nline 2\r\nline 3\r\n")


def powershell():
    session = winrm.Session("unused", auth=(arguments.user, arguments.password or "unused"))
    session.protocol = protocol()
    result = session.run_ps("Write-Output 'from PowerShell'; Write-Error 'broken'; exit 37")
    checks.equal((result.std_out, result.status_code), (b"from PowerShell\r\n", 37))
    if b"broken" not in result.std_err or b"CLIXML" in result.std_err:
        raise AssertionError(f"unexpected standard error {result.std_err!r}")


def environment_and_directory():
    client = protocol()
    shell = client.open_shell(working_directory="C:\\Temp", env_vars={"COLOR": "blue"}, codepage=65001)
    try:
        command_id = client.run_command(shell, "echo %COLOR%& cd")
        checks.equal(client.get_command_output(shell, command_id)[0], b"blue\r\nC:\\Temp\r\n")
        client.cleanup_command(shell, command_id)
    finally:
        client.close_shell(shell)


def wrong_password():
    try:
        protocol(password="certainly wrong").open_shell()
    except InvalidCredentialsError:
        return
    raise AssertionError("a wrong password was accepted")


results = checks.Checks("pywinrm")
for check in [
    runs,
    argument_quoting,
    exit_codes,
    stderr,
    stdin,
    large_output,
    non_ascii,
    longer_than_operation_timeout,
    powershell,
    environment_and_directory,
    wrong_password,
]:
    results.run(check.__name__, check)
results.finish()
