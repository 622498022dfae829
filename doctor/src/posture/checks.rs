//! What is looked at: name, what is wanted, and how to get there. One table, compared with `docs/posture.md` by a test.
//!
//! Fixes are commands for an elevated PowerShell on the host, or the path of a group policy. They are told, never run.

/// One thing that is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    /// Stable name.
    pub(super) name: &'static str,
    /// What should be so.
    pub(super) wanted: &'static str,
    /// What to do.
    pub(super) fix: &'static str,
}

/// The group policies of the service.
macro_rules! policy {
    ($name:literal) => {
        concat!(
            "Computer Configuration > Policies > Administrative Templates > Windows Components > Windows Remote Management \
             (WinRM) > WinRM Service > ",
            $name
        )
    };
}

pub(super) const HTTPS_ONLY: Check = Check {
    name: "https_only",
    wanted: "an enabled HTTPS listener, and no enabled HTTP listener",
    fix: "Once HTTPS works: Remove-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet \
          @{Address='*';Transport='HTTP'}; a listener that a group policy makes (Allow remote server management through WinRM) \
          goes with that policy.",
};
pub(super) const CERTIFICATE_TRUSTED: Check = Check {
    name: "certificate_trusted",
    wanted: "a certificate of an authority that clients trust, for the name that they use",
    fix: "Enrol a certificate for server authentication from the organization's authority or a public one, with the host's \
          full name, and bind it: Set-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet \
          @{Address='*';Transport='HTTPS'} -ValueSet @{CertificateThumbprint='THUMBPRINT'}.",
};
pub(super) const CERTIFICATE_EXPIRY: Check = Check {
    name: "certificate_expiry",
    wanted: "a certificate that is valid for 14 days or more",
    fix: "Renew it, or let autoenrolment do so: Computer Configuration > Policies > Windows Settings > Security Settings > \
          Public Key Policies > Certificate Services Client - Auto-Enrollment; then bind the new thumbprint.",
};
pub(super) const CERTIFICATE_BOUND: Check = Check {
    name: "certificate_bound",
    wanted: "the listener's own certificate is the one that clients get",
    fix: "Look who answers in the listener's place: netsh http show sslcert, and proxies that end TLS on the way. Bind the \
          right thumbprint: Set-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet \
          @{Address='*';Transport='HTTPS'} -ValueSet @{CertificateThumbprint='THUMBPRINT'}.",
};
pub(super) const LISTENING_ADDRESSES: Check = Check {
    name: "listening_addresses",
    wanted: "listeners at named addresses only, not at the loopback",
    fix: "Make the listener for its address: New-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet \
          @{Address='IP:ADDRESS';Transport='HTTPS'} -ValueSet @{CertificateThumbprint='THUMBPRINT'}, then remove the one for \
          '*'; or keep it and limit the addresses by IPv4Filter and IPv6Filter.",
};
pub(super) const IPV4_FILTER: Check = Check {
    name: "ipv4_filter",
    wanted: "ranges of IPv4 addresses, or none, but not all",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\IPv4Filter 'FIRST-LAST', or the group policy ",
        policy!("Allow remote server management through WinRM: IPv4 filter.")
    ),
};
pub(super) const IPV6_FILTER: Check = Check {
    name: "ipv6_filter",
    wanted: "ranges of IPv6 addresses, or none, but not all",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\IPv6Filter 'FIRST-LAST' (or '' where there is no IPv6), or the group policy ",
        policy!("Allow remote server management through WinRM: IPv6 filter.")
    ),
};
pub(super) const COMPATIBILITY_LISTENERS: Check = Check {
    name: "compatibility_listeners",
    wanted: "no listeners at the old ports 80 and 443",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\EnableCompatibilityHttpListener $false; Set-Item \
         WSMan:\\localhost\\Service\\EnableCompatibilityHttpsListener $false, or the group policies ",
        policy!("Turn On Compatibility HTTP Listener / Turn On Compatibility HTTPS Listener: Disabled.")
    ),
};
pub(super) const BASIC: Check = Check {
    name: "basic",
    wanted: "Basic is off",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\Auth\\Basic $false, or the group policy ",
        policy!("Allow Basic authentication: Disabled.")
    ),
};
pub(super) const ALLOW_UNENCRYPTED: Check = Check {
    name: "allow_unencrypted",
    wanted: "AllowUnencrypted is off",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\AllowUnencrypted $false, or the group policy ",
        policy!("Allow unencrypted traffic: Disabled.")
    ),
};
pub(super) const CREDSSP: Check = Check {
    name: "credssp",
    wanted: "CredSSP is off, unless tasks need it: it hands the host the password",
    fix: concat!(
        "Disable-WSManCredSSP -Role Server, or the group policy ",
        policy!("Allow CredSSP authentication: Disabled."),
        " Kerberos delegation to named services serves most of its uses."
    ),
};
pub(super) const AUTHENTICATION: Check = Check {
    name: "authentication",
    wanted: "Kerberos or Negotiate (NTLM) is on, and client certificates are off",
    fix: concat!(
        "Set-Item WSMan:\\localhost\\Service\\Auth\\Kerberos $true; Set-Item WSMan:\\localhost\\Service\\Auth\\Certificate \
         $false; and the group policy ",
        policy!("Disallow Kerberos authentication: Disabled.")
    ),
};
pub(super) const CHANNEL_BINDINGS: Check = Check {
    name: "channel_bindings",
    wanted: "CbtHardeningLevel is Strict",
    fix: concat!(
        "Once all clients send channel bindings and no proxy ends TLS on the way: Set-Item \
         WSMan:\\localhost\\Service\\Auth\\CbtHardeningLevel Strict, or the group policy ",
        policy!("Specify channel binding token hardening level: Strict.")
    ),
};
pub(super) const CERTIFICATE_MAPPINGS: Check = Check {
    name: "certificate_mappings",
    wanted: "no mapping of client certificates takes any subject",
    fix: "Get-ChildItem WSMan:\\localhost\\ClientCertificate, and Remove-Item for those that nobody needs.",
};
pub(super) const ROOT_SDDL: Check = Check {
    name: "root_sddl",
    wanted: "access for Administrators, Remote Management Users, Interactive, and single accounts or groups",
    fix: "Set-PSSessionConfiguration does not touch it: winrm configSDDL default shows a dialogue; or Set-Item \
          WSMan:\\localhost\\Service\\RootSDDL 'O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;RM)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)'. \
          Give others access by membership in Remote Management Users.",
};
pub(super) const FIREWALL_SCOPE: Check = Check {
    name: "firewall_scope",
    wanted: "Windows Firewall is on, and only named addresses reach the port of WinRM",
    fix: "Set-NetFirewallRule -DisplayGroup 'Windows Remote Management' -RemoteAddress ADDRESSES (those of the agents), and \
          the same for the rule of the HTTPS port; or the group policy Computer Configuration > Policies > Windows Settings > \
          Security Settings > Windows Defender Firewall with Advanced Security.",
};
pub(super) const SCRIPT_BLOCK_LOGGING: Check = Check {
    name: "script_block_logging",
    wanted: "PowerShell logs script blocks",
    fix: "The group policy Computer Configuration > Policies > Administrative Templates > Windows Components > Windows \
          PowerShell > Turn on PowerShell Script Block Logging: Enabled; or New-Item -Force \
          HKLM:\\SOFTWARE\\Policies\\Microsoft\\Windows\\PowerShell\\ScriptBlockLogging | Set-ItemProperty -Name \
          EnableScriptBlockLogging -Value 1.",
};
pub(super) const LOG_SECURITY: Check = Check {
    name: "log_security",
    wanted: "the event log Security is on and holds 20 MiB or more",
    fix: "wevtutil sl Security /ms:201326592, or the group policy Computer Configuration > Policies > Administrative Templates \
          > Windows Components > Event Log Service > Security > Specify the maximum log file size (KB).",
};
pub(super) const LOG_WINRM: Check = Check {
    name: "log_winrm",
    wanted: "the event log Microsoft-Windows-WinRM/Operational is on and holds 1 MiB or more",
    fix: "wevtutil sl Microsoft-Windows-WinRM/Operational /e:true /ms:33554432.",
};
pub(super) const LOG_POWERSHELL: Check = Check {
    name: "log_powershell",
    wanted: "the event log Microsoft-Windows-PowerShell/Operational is on and holds 15 MiB or more",
    fix: "wevtutil sl Microsoft-Windows-PowerShell/Operational /e:true /ms:33554432.",
};
pub(super) const SESSION_CONFIGURATIONS: Check = Check {
    name: "session_configurations",
    wanted: "session configurations of PowerShell remoting open to Administrators, Remote Management Users, Interactive, and \
             single accounts or groups",
    fix: "Set-PSSessionConfiguration -Name NAME -SecurityDescriptorSddl \
          'O:NSG:BAD:P(A;;GA;;;SID)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)' with the SID of the account that runs tasks; \
          Disable-PSSessionConfiguration -Name NAME for those that nobody uses.",
};
