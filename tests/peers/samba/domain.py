"""The domain: provisioned by Samba's own code, and read and changed by LDAP while it runs."""

import logging
import os

from samba import dsdb
from samba.auth import system_session
from samba.credentials import Credentials
from samba.param import LoadParm
from samba.provision import provision as provision_domain
from samba.samdb import SamDB

# Set by an administrator, never typed: nobody logs in with it.
ADMINISTRATOR = "Adm1n-" + os.urandom(12).hex()
# No file or print server and no DNS: nobody asks them. `rpc` and `cldap` are what winbind finds and asks its controller
# by.
SERVICES = "rpc, ldap, cldap, kdc, winbindd"


def provision(dns, domain, address):
    settings = LoadParm()
    for name, value in (
        ("interfaces", f"127.0.0.1/8 {address}/24"),
        ("bind interfaces only", "yes"),
        ("server services", SERVICES),
    ):
        settings.set(name, value)
    logger = logging.getLogger("provision")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.WARNING)
    provision_domain(
        logger,
        system_session(),
        realm=dns.upper(),
        domain=domain,
        hostname="dc1",
        hostip=address,
        adminpass=ADMINISTRATOR,
        serverrole="active directory domain controller",
        dns_backend="SAMBA_INTERNAL",
        dom_for_fun_level=dsdb.DS_DOMAIN_FUNCTION_2008_R2,
        lp=settings,
        skip_sysvolacl=True,
    )
    with open("/etc/samba/smb.conf", encoding="utf-8") as file:
        text = file.read()
    with open("/etc/samba/smb.conf", "w", encoding="utf-8") as file:
        # Else LDAP listens only after a certificate has been made, which takes seconds on a busy machine.
        file.write(text.replace("[global]", "[global]\n\ttls enabled = no"))


def settings():
    """Those that provisioning has written."""
    parameters = LoadParm()
    parameters.load_default()
    return parameters


def database():
    """The directory's database, for use before the domain controller runs."""
    return SamDB(session_info=system_session(), lp=settings())


class Directory:
    """The directory of the running domain controller, over LDAP."""

    def __init__(self, dns):
        parameters = settings()
        credentials = Credentials()
        credentials.guess(parameters)
        credentials.set_username("Administrator")
        credentials.set_password(ADMINISTRATOR)
        self._ldap = SamDB(url=f"ldap://dc1.{dns}", credentials=credentials, lp=parameters)

    def get(self, account, attributes):
        """Attributes of the account of this name, as text; those that it lacks are left out."""
        found = self._ldap.search(
            base=self._ldap.domain_dn(), expression=f"(sAMAccountName={account})", attrs=attributes
        )
        if len(found) != 1:
            raise LookupError(f"{len(found)} accounts are named {account}")
        return {name: str(found[0][name][0]) for name in attributes if name in found[0]}

    def set_password(self, account, password):
        self._ldap.setpassword(f"(sAMAccountName={account})", password)
        return {}
