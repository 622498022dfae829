"""pypsrp's WinRS shell against a WinRM host."""

import xml.etree.ElementTree as ET

from pypsrp.exceptions import AuthenticationError, WSManFaultError
from pypsrp.shell import Process, SignalCode, WinRS
from pypsrp.wsman import WSMan

import checks

arguments = checks.arguments("pypsrp")


def connection(password=arguments.password, operation_timeout=20):
    return WSMan(
        arguments.host,
        port=arguments.port,
        username=arguments.user,
        password=password,
        ssl=arguments.scheme == "https",
        auth=arguments.auth,
        cert_validation=arguments.ca if arguments.ca else True,
        encryption=arguments.encryption,
        operation_timeout=operation_timeout,
        read_timeout=operation_timeout + 30,
        no_proxy=True,
        # Of no meaning to Basic.
        **({} if arguments.auth == "basic" else {"negotiate_delegate": arguments.delegate}),
    )


def run(command, args=(), stdin=None, operation_timeout=20, **shell_options):
    shell_options.setdefault("codepage", 65001)
    with connection(operation_timeout=operation_timeout) as wsman, WinRS(wsman, **shell_options) as shell:
        process = Process(shell, command, list(args))
        if stdin is None:
            process.invoke()
        else:
            process.begin_invoke()
            process.send(stdin, end=True)
            process.end_invoke()
        process.signal(SignalCode.CTRL_C)
        return process.stdout, process.stderr, process.rc


def runs():
    checks.equal(run("echo", ["hello", "world"]), (b"hello world\r\n", b"", 0))


def argument_quoting():
    checks.equal(run("sim.exe", ["argv", '"a b"', "c"])[0], b'["a b","c"]\r\n')


def exit_codes():
    for code in [0, 5, 37]:
        checks.equal(run("sim.exe", ["exit", str(code)])[2], code)


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


def environment_and_directory():
    out, _, _ = run("echo %COLOR%& cd", environment={"COLOR": "blue"}, working_directory="C:\\Temp")
    checks.equal(out, b"blue\r\nC:\\Temp\r\n")


def several_commands_in_one_shell():
    with connection() as wsman, WinRS(wsman, codepage=65001, idle_time_out=600) as shell:
        for number in range(5):
            process = Process(shell, "echo", [str(number)])
            process.invoke()
            process.signal(SignalCode.TERMINATE)
            checks.equal((process.stdout, process.rc), (f"{number}\r\n".encode(), 0))


def interruption():
    with connection() as wsman, WinRS(wsman) as shell:
        process = Process(shell, "sim.exe", ["sleep", "600000"])
        process.begin_invoke()
        process.signal(SignalCode.CTRL_C)
        process.end_invoke()
        checks.equal(process.rc, 3221225786)
        process.signal(SignalCode.TERMINATE)


def unknown_command_id():
    with connection() as wsman, WinRS(wsman) as shell:
        process = Process(shell, "ver")
        process.begin_invoke()
        process.id = "87E77BEB-6761-4C48-9D70-A00266B8459A"
        try:
            process.signal(SignalCode.TERMINATE)
        except WSManFaultError as fault:
            checks.equal(fault.code, 2150858843)
            return
    raise AssertionError("no fault")


def configuration():
    """What pypsrp reads of winrm/config, and what it can enumerate."""
    config = "http://schemas.microsoft.com/wbem/wsman/1/config"
    with connection() as wsman:
        answer = wsman.get(config, None)
        settings = {element.tag: element.text for element in answer.iter()}
        checks.equal(settings[f"{{{config}}}MaxEnvelopeSizekb"], "500")
        checks.equal(settings[f"{{{config}}}AllowUnencrypted"], "false")
        checks.equal(answer.find(f".//{{{config}}}Service/{{{config}}}RootSDDL").text.startswith("O:NSG:BAD:P"), True)
        # What it does by itself with the answer.
        wsman.update_max_payload_size()
        checks.equal(wsman.max_envelope_size, 500 * 1024)
        body = ET.Element("{http://schemas.xmlsoap.org/ws/2004/09/enumeration}Enumerate")
        ET.SubElement(body, "{http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd}OptimizeEnumeration")
        ET.SubElement(body, "{http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd}MaxElements").text = "100"
        listed = wsman.enumerate(f"{config}/listener", body)
        listeners = list(listed.iter(f"{{{config}/listener}}Listener"))
        checks.equal(len(listeners), 1)
        told = {element.tag.split("}")[1]: element.text for element in listeners[0]}
        checks.equal((told["Transport"], told["Port"]), (arguments.scheme.upper(), str(arguments.port)))
        checks.equal((told["Enabled"], told["ListeningOn"]), ("true", "127.0.0.1"))


def wrong_password():
    try:
        with connection(password="certainly wrong") as wsman, WinRS(wsman):
            pass
    except AuthenticationError:
        return
    raise AssertionError("a wrong password was accepted")


results = checks.Checks("pypsrp")
for check in [
    runs,
    argument_quoting,
    exit_codes,
    stderr,
    stdin,
    large_output,
    non_ascii,
    longer_than_operation_timeout,
    environment_and_directory,
    several_commands_in_one_shell,
    interruption,
    unknown_command_id,
    configuration,
    wrong_password,
]:
    results.run(check.__name__, check)
results.finish()
