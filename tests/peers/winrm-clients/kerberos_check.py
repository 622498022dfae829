"""MIT's library against a WinRM host, by hand-made HTTP: what no client does by itself, or does and does not show."""

import base64
import http.client
import struct

import gssapi
from spnego._spnego import NegState, NegTokenInit, NegTokenResp, pack_mech_type_list, unpack_token

import checks

arguments = checks.arguments("gssapi")

KERBEROS = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2")
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
SPNEGO_TYPE = "application/HTTP-SPNEGO-session-encrypted"
KERBEROS_TYPE = "application/HTTP-Kerberos-session-encrypted"
FLAGS = (
    gssapi.RequirementFlag.mutual_authentication
    | gssapi.RequirementFlag.confidentiality
    | gssapi.RequirementFlag.integrity
    | gssapi.RequirementFlag.out_of_sequence_detection
)
IDENTIFY = (
    b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    b'xmlns:w="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><w:Identify/></s:Body></s:Envelope>'
)


# An error is one when it happens, not with the next call.
gssapi.SecurityContext.__DEFER_STEP_ERRORS__ = False


class Host:
    """One connection."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(arguments.host, arguments.port, timeout=30)

    def post(self, body=b"", **headers):
        self.connection.request("POST", "/wsman", body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        answer.content = answer.read()
        return answer

    def token(self, scheme, token):
        """Sends a token; the status, and the token of the answer."""
        answer = self.post(Authorization=f"{scheme} {base64.b64encode(token).decode()}", Content_Length="0")
        fields = (answer.headers.get("WWW-Authenticate") or "").split(" ")
        own = base64.b64decode(fields[1]) if len(fields) == 2 and fields[0] == scheme else None
        return answer.status, own

    def sealed(self, context, protocol):
        """Sends Identify, sealed; the answer."""
        header, data = wrap(context, IDENTIFY)
        body = (
            f"--Encrypted Boundary\r\n\tContent-Type: {protocol}\r\n"
            f"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={len(IDENTIFY)}\r\n"
            "--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
        ).encode()
        body += struct.pack("<I", len(header)) + header + data + b"--Encrypted Boundary--\r\n"
        return self.post(body, Content_Type=f'multipart/encrypted;protocol="{protocol}";boundary="Encrypted Boundary"')


def wrap(context, plain):
    iov = gssapi.raw.IOV(gssapi.raw.IOVBufferType.header, plain, gssapi.raw.IOVBufferType.padding, std_layout=False)
    gssapi.raw.wrap_iov(context, iov, confidential=True)
    return iov[0].value, iov[1].value + (iov[2].value or b"")


def initiator(mechanism, flags=FLAGS):
    name = gssapi.Name(f"HTTP@{arguments.host}", gssapi.NameType.hostbased_service)
    return gssapi.SecurityContext(name=name, mech=mechanism, flags=flags, usage="initiate")


def log_on(host, scheme, mechanism, flags=FLAGS):
    context = initiator(mechanism, flags)
    status, answer = host.token(scheme, context.step())
    checks.equal(status, 200)
    if answer is not None:
        checks.equal(context.step(answer), None)
    checks.equal(context.complete, True)
    return context


def opened(answer, context, protocol):
    """The plain text of a sealed answer, after looking at its shape."""
    checks.equal(answer.status, 200)
    checks.equal(f'protocol="{protocol}"' in answer.headers["Content-Type"], True)
    sealed = answer.content.split(b"\tContent-Type: application/octet-stream\r\n", 1)[1]
    sealed = sealed.removesuffix(b"--Encrypted Boundary--\r\n")
    length = struct.unpack("<I", sealed[:4])[0]
    header, data = sealed[4 : 4 + length], sealed[4 + length :]
    # EC 0, and RRC all but header and confounder; MIT's own have the same length.
    checks.equal(length in [60, 64, 72], True)
    checks.equal(struct.unpack(">HH", header[4:8]), (0, length - 32))
    iov = gssapi.raw.IOV((gssapi.raw.IOVBufferType.header, False, header), data, gssapi.raw.IOVBufferType.data, std_layout=False)
    gssapi.raw.unwrap_iov(context, iov)
    return iov[1].value


def both_schemes():
    for scheme, mechanism, protocol in [
        ("Negotiate", SPNEGO, SPNEGO_TYPE),
        ("Negotiate", KERBEROS, SPNEGO_TYPE),
        ("Kerberos", KERBEROS, KERBEROS_TYPE),
    ]:
        host = Host()
        context = log_on(host, scheme, mechanism)
        plain = opened(host.sealed(context, protocol), context, protocol)
        checks.equal(b"IdentifyResponse" in plain, True)


def protocol_of_the_other_scheme():
    for scheme, protocol in [("Negotiate", KERBEROS_TYPE), ("Kerberos", SPNEGO_TYPE)]:
        host = Host()
        checks.equal(host.sealed(log_on(host, scheme, KERBEROS), protocol).status, 415)


def no_mutual_authentication():
    host = Host()
    context = initiator(KERBEROS, FLAGS & ~gssapi.RequirementFlag.mutual_authentication)
    checks.equal(host.token("Kerberos", context.step()), (200, None))
    checks.equal(host.sealed(context, KERBEROS_TYPE).status, 200)


def sealed_messages_are_counted():
    host = Host()
    context = log_on(host, "Negotiate", SPNEGO)
    wrap(context, b"lost")
    checks.equal(host.sealed(context, SPNEGO_TYPE).status, 400)


def replay():
    token = initiator(KERBEROS).step()
    checks.equal(Host().token("Kerberos", token)[0], 200)
    status, answer = Host().token("Kerberos", token)
    checks.equal((status, answer is not None), (401, True))


def kerberos_as_second_choice():
    """RFC 4178 5: the list must be protected by MICs of both sides when the favourite is not taken."""
    for tampered in [False, True]:
        host, context = Host(), initiator(KERBEROS)
        mechanisms = ["1.3.6.1.4.1.311.2.2.30", "1.2.840.113554.1.2.2"]
        init = NegTokenInit(mech_types=mechanisms, mech_token=b"for the favourite")
        listed = pack_mech_type_list(mechanisms)
        status, answer = host.token("Negotiate", init.pack())
        answer = unpack_token(answer)
        checks.equal((status, answer.supported_mech, answer.response_token), (401, mechanisms[1], None))
        status, answer = host.token("Negotiate", NegTokenResp(response_token=context.step()).pack())
        answer = unpack_token(answer)
        checks.equal((status, answer.neg_state), (401, NegState.accept_incomplete))
        context.step(answer.response_token)
        context.verify_signature(listed, answer.mech_list_mic)
        mic = context.get_signature(listed + b"!" if tampered else listed)
        status, answer = host.token("Negotiate", NegTokenResp(neg_state=NegState.accept_complete, mech_list_mic=mic).pack())
        checks.equal((status, answer), (401, None) if tampered else (200, None))
        if not tampered:
            checks.equal(b"IdentifyResponse" in opened(host.sealed(context, SPNEGO_TYPE), context, SPNEGO_TYPE), True)


def told(text):
    """What MIT's library reads in the answer to its ticket."""
    for scheme, mechanism in [("Kerberos", KERBEROS), ("Negotiate", SPNEGO)]:
        context = initiator(mechanism)
        status, answer = Host().token(scheme, context.step())
        checks.equal(status, 401)
        try:
            context.step(answer)
        except gssapi.exceptions.GSSError as error:
            checks.equal(text in str(error), True)
            continue
        raise AssertionError("the error was taken for an answer")


def the_error_of_a_ticket_for_other_keys():
    """It is only run against a host whose keys have been changed."""
    told("Message stream modified")


def the_error_of_a_wrong_clock():
    """It is only run with a KDC that lives in the past, whose time MIT's library takes over."""
    told("Clock skew too great")


def a_good_ticket_without_rights():
    """It is only run against a host that does not know the principal: 401 and nothing to go on with."""
    for scheme, mechanism in [("Kerberos", KERBEROS), ("Negotiate", SPNEGO)]:
        checks.equal(Host().token(scheme, initiator(mechanism).step()), (401, None))


results = checks.Checks("gssapi")
for check in [
    both_schemes,
    protocol_of_the_other_scheme,
    no_mutual_authentication,
    sealed_messages_are_counted,
    replay,
    kerberos_as_second_choice,
    the_error_of_a_ticket_for_other_keys,
    the_error_of_a_wrong_clock,
    a_good_ticket_without_rights,
]:
    results.run(check.__name__, check)
results.finish()
