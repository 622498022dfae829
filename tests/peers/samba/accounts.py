"""Who is in the domain: users and computers in the states that matter, their service names, groups and keytabs.

Everything is written into the database in one transaction before the domain controller runs; that is many times
faster than to ask it for one account after the other. Only accounts, never the outcome of a login, are decided here.
"""

import os
import subprocess

import samba.dckeytab  # noqa: F401 (gives `Net` the function that exports keytabs)
from samba import dsdb
from samba.credentials import Credentials
from samba.net import Net

from domain import database, settings

NORMAL, DISABLED, COMPUTER = 0x200, 0x2, 0x1000
# Else an account that is made before Samba has read its password policy may ask for a new password.
LASTING = 0x10000
NO_PREAUTHENTICATION, TRUSTED_FOR_DELEGATION, NOT_DELEGATED = 0x400000, 0x80000, 0x100000
AES, RC4 = "24", "4"
GROUPS = 400
# Five wrong passwords within half an hour lock an account for half an hour.
LOCKOUT_THRESHOLD = 5
HALF_AN_HOUR = str(-30 * 60 * 10_000_000)
LONG_AGO = "131000000000000000"

PASSWORD = "Right-" + os.urandom(6).hex()
UMLAUTS = "пароль-ß€😀-A1"


def accounts(dns):
    """name -> attributes; `password` and `flags` are ours, the others are the directory's."""
    realm = dns.upper()
    return {
        "alice": {"userPrincipalName": f"alice@{dns}"},
        "jürgen": {"password": UMLAUTS, "userPrincipalName": f"jürgen@{dns}"},
        # Their salts hold the name as it is spelt here, and what a renamed one was called first.
        "Mixed.Case": {},
        "renamed": {},
        # Login names that have nothing in common with the account's own: in the domain's suffix, and in another.
        "upn.same": {"userPrincipalName": f"erika.mustermann@{dns}"},
        "upn.other": {"userPrincipalName": "max.mustermann@mail.example"},
        # Tests that spoil the state of an account have one that no other test uses.
        "wrong": {},
        "wrong.doctor": {},
        "wrong.upn": {"userPrincipalName": f"wrong.by.upn@{dns}"},
        "wrong.other": {"userPrincipalName": "wrong.other@mail.example"},
        "rotated": {},
        "locked": {},
        "locked.doctor": {},
        "locked.ntlm": {},
        "locked.spnego": {},
        "disabled": {"flags": NORMAL | LASTING | DISABLED},
        "expired": {"accountExpires": LONG_AGO},
        "mustchange": {"flags": NORMAL, "pwdLastSet": "0"},
        "hours": {"logonHours": bytes(21)},
        "nopreauth": {"flags": NORMAL | LASTING | NO_PREAUTHENTICATION},
        "crowded": {},
        "delegator": {},
        "undelegated": {"flags": NORMAL | LASTING | NOT_DELEGATED},
        # As old as its password: see below.
        "rc4.user": {},
        "svc.aes": {
            "msDS-SupportedEncryptionTypes": AES,
            "servicePrincipalName": [f"HTTP/aes.{dns}", "HTTP/aes", f"WSMAN/aes.{dns}", "WSMAN/aes"],
        },
        "svc.wsman": {"msDS-SupportedEncryptionTypes": AES, "servicePrincipalName": [f"WSMAN/wsman.{dns}"]},
        "svc.rc4": {"msDS-SupportedEncryptionTypes": RC4, "servicePrincipalName": [f"HTTP/rc4.{dns}"]},
        # What an account has that nobody thought about.
        "svc.unset": {"servicePrincipalName": [f"HTTP/unset.{dns}"]},
        "WIN01$": {
            "flags": COMPUTER,
            "dNSHostName": f"win01.{dns}",
            "msDS-SupportedEncryptionTypes": AES,
            "servicePrincipalName": ["HOST/WIN01", f"HOST/win01.{dns}", "WSMAN/WIN01", f"WSMAN/win01.{dns}"],
        },
        "WIN02$": {
            "flags": COMPUTER | TRUSTED_FOR_DELEGATION,
            "dNSHostName": f"win02.{dns}",
            "msDS-SupportedEncryptionTypes": AES,
            "servicePrincipalName": ["HOST/WIN02", f"HOST/win02.{dns}"],
        },
        # Its service name is written as people write them.
        "SQL$": {
            "flags": COMPUTER,
            "msDS-SupportedEncryptionTypes": AES,
            "servicePrincipalName": [f"HOST/Server.Sub.{dns}"],
        },
    }


def populate(dns, directory):
    """Makes them all and gives what a test must know: passwords by account, and keytabs by theirs."""
    ldb = database()
    base = ldb.domain_dn()
    wanted = accounts(dns)
    passwords = {name: attributes.get("password", PASSWORD) for name, attributes in wanted.items()}

    ldb.transaction_start()
    ldb.modify_ldif(
        f"dn: {base}\nchangetype: modify\n"
        f"replace: lockoutThreshold\nlockoutThreshold: {LOCKOUT_THRESHOLD}\n-\n"
        f"replace: lockoutDuration\nlockoutDuration: {HALF_AN_HOUR}\n-\n"
        f"replace: lockOutObservationWindow\nlockOutObservationWindow: {HALF_AN_HOUR}\n"
    )
    ldb.modify_ldif(
        f"dn: CN=Partitions,{ldb.get_config_basedn()}\nchangetype: modify\n"
        "add: uPNSuffixes\nuPNSuffixes: mail.example\n"
    )
    for name, attributes in wanted.items():
        own = {key: value for key, value in attributes.items() if key not in ("password", "flags")}
        first = "former.name" if name == "renamed" else name
        computer = name.endswith("$")
        ldb.add({
            "dn": f"CN={first.rstrip('$')},CN={'Computers' if computer else 'Users'},{base}",
            "objectClass": "computer" if computer else "user",
            "sAMAccountName": first,
            "userAccountControl": str(attributes.get("flags", NORMAL | LASTING)),
            "clearTextPassword": passwords[name].encode("utf-16-le"),
            **own,
        })
    ldb.modify_ldif(
        f"dn: CN=former.name,CN=Users,{base}\nchangetype: modify\nreplace: sAMAccountName\nsAMAccountName: renamed\n"
    )
    # A password that was set when the domain made no AES keys of it: all that is left is the hash that is RC4's key.
    ldb.modify_ldif(
        f"dn: CN=rc4.user,CN=Users,{base}\nchangetype: modify\ndelete: supplementalCredentials\n",
        controls=[f"local_oid:{dsdb.DSDB_CONTROL_BYPASS_PASSWORD_HASH_OID}:0"],
    )
    ldb.add({"dn": f"OU=Groups,{base}", "objectClass": "organizationalUnit"})
    for number in range(GROUPS):
        ldb.add({
            "dn": f"CN=group-{number:03},OU=Groups,{base}",
            "objectClass": "group",
            "sAMAccountName": f"group-{number:03}",
            "member": f"CN=crowded,CN=Users,{base}",
        })
    ldb.transaction_commit()

    keytabs = {}
    for name in (
        *("alice", "Mixed.Case", "renamed", "rotated", "WIN01$", "WIN02$", "svc.aes"),
        *(f"{service}.{dns}" for service in ("HTTP/aes", "HTTP/win01", "HTTP/win02", "WSMAN/wsman")),
    ):
        keytabs[name] = os.path.join(directory, f"{name.replace('/', '_')}.keytab")
        net = Net(Credentials(), settings())
        net.export_keytab(keytab=keytabs[name], principal=name)
    # Made by hand as people do, with MIT's default salt: wrong, since it holds the name as it was typed.
    keytabs["wrong-salt-case"] = os.path.join(directory, "wrong-salt-case.keytab")
    subprocess.run(
        ["ktutil"],
        input=(
            f"addent -password -p mixed.case@{dns.upper()} -k 1 -e aes256-cts-hmac-sha1-96\n{passwords['Mixed.Case']}\n"
            f"wkt {keytabs['wrong-salt-case']}\nquit\n"
        ),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {"accounts": passwords, "keytabs": keytabs}
