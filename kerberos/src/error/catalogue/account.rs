//! The account and its policies: who it is, whether the KDC takes its proof, and what it may do.

use super::{Asked, Login, With, asked_text, detail};
use crate::enquire::Reply;
use crate::error::{Error, ErrorKind};

pub(super) fn principal_unknown(login: &Login) -> Error {
    let Login { principal, realm, .. } = login;
    detail(
        ErrorKind::Other,
        "kerberos.principal_unknown",
        format!("{realm} does not know the user {principal}"),
        "The name is misspelt, the account is in another domain, or the name is only a user principal name whose suffix \
         is not the realm. Nothing was said about the password.",
        format!(
            "Use the logon name (sAMAccountName) as user@{realm}, or give the user principal name together with the \
             realm. In Active Directory: Get-ADUser -Filter \"UserPrincipalName -eq '{principal}'\""
        ),
        Some(format!("Client '{principal}' not found in Kerberos database while getting initial credentials")),
    )
}

pub(super) fn rejected(login: &Login, enquiry: Option<&Reply>) -> Error {
    let Login { principal, realm, with } = login;
    match with {
        With::Password => detail(
            ErrorKind::Rejected,
            "kerberos.password_rejected",
            format!("{realm} does not accept the password of {principal}"),
            "The password is wrong or was changed. It was tried once and is not tried again, because accounts lock out.",
            "Store the right password as a new version of the credential.",
            Some("Password incorrect while getting initial credentials".to_owned()),
        ),
        With::Keytab | With::Cache => {
            let salt = enquiry.and_then(Reply::salt_text).map_or_else(String::new, |salt| {
                format!(
                    " The KDC's salt is `{salt}`: a key made of the password with any other, be it by case, is wrong."
                )
            });
            detail(
                ErrorKind::Rejected,
                "kerberos.keytab_rejected",
                format!("{realm} accepts none of the keytab's keys of {principal}"),
                format!(
                    "The password was changed since the keytab was made, the keytab was made of a wrong password, or with \
                     a wrong salt (often the user's name in another case).{salt}"
                ),
                "Make the keytab again: `lictor keytab create` asks the KDC for the salt. A keytab that was replaced is \
                 noticed without a restart.",
                Some("Preauthentication failed while getting initial credentials".to_owned()),
            )
        }
    }
}

/// What Active Directory says beside "revoked": [MS-ERREF] 2.3.1.
pub(super) struct Status {
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
}

impl Status {
    pub(super) const EXPIRED: Self = Self {
        code: "kerberos.account_expired",
        what: "has expired",
        remedy: "Extend the account: Set-ADAccountExpiration, or Clear-ADAccountExpiration.",
    };
    const UNKNOWN: Self = Self {
        code: "kerberos.account_revoked",
        what: "is locked, disabled, expired, or outside its logon hours",
        remedy: "Look at the account: Get-ADUser NAME -Properties LockedOut,Enabled,AccountExpirationDate,LogonHours. Then \
                 Unlock-ADAccount or Enable-ADAccount. What locks an account is most often an old password kept somewhere.",
    };

    fn of(status: u32) -> Option<Self> {
        let (code, what, remedy) = match status {
            0xC000_0234 => (
                "kerberos.account_locked",
                "is locked out",
                "Find what tries a wrong password (event 4740 on the domain controller), then Unlock-ADAccount.",
            ),
            0xC000_0072 => ("kerberos.account_disabled", "is disabled", "Enable the account: Enable-ADAccount."),
            0xC000_0193 => return Some(Self::EXPIRED),
            0xC000_006F => {
                ("kerberos.logon_hours", "may not log on at this hour", "Change the account's logon hours, or wait.")
            }
            0xC000_0070 => (
                "kerberos.workstation",
                "may not log on from this machine",
                "Remove the account's list of workstations (Log On To), or add this machine.",
            ),
            0xC000_0413 => (
                "kerberos.authentication_policy",
                "is kept from logging on by an authentication policy or selective authentication",
                "Grant `Allowed to Authenticate`, or change the policy.",
            ),
            _ => return None,
        };
        Some(Self { code, what, remedy })
    }
}

pub(super) fn revoked(login: &Login, enquiry: Option<&Reply>) -> Error {
    account(login, &enquiry.and_then(|reply| Status::of(reply.status?)).unwrap_or(Status::UNKNOWN))
}

pub(super) fn account(login: &Login, status: &Status) -> Error {
    let Login { principal, realm, .. } = login;
    detail(
        ErrorKind::Rejected,
        status.code,
        format!("{realm} lets {principal} get no ticket: the account {}", status.what),
        "That is what the KDC says of the account; the password or key need not be wrong.",
        status.remedy,
        Some(if status.code == Status::EXPIRED.code {
            "Client's entry in database has expired while getting initial credentials".to_owned()
        } else {
            "Client's credentials have been revoked while getting initial credentials".to_owned()
        }),
    )
}

pub(super) fn password_expired(login: &Login, enquiry: Option<&Reply>) -> Error {
    let Login { principal, realm, .. } = login;
    // Active Directory says which of the two; MIT's KDC does not.
    let (code, what) = match enquiry.and_then(|reply| reply.status) {
        Some(0xC000_0224) => ("kerberos.password_must_change", "must be changed before the first logon"),
        _ => ("kerberos.password_expired", "has expired or must be changed"),
    };
    detail(
        ErrorKind::Rejected,
        code,
        format!("{realm} gives {principal} no ticket: the password {what}"),
        "The password reached its age limit, or `must change password at next logon` is set.",
        "Change the password and store the new one (or make the keytab again). For service accounts clear the flag: \
         Set-ADUser NAME -ChangePasswordAtLogon $false.",
        Some("Password has expired while getting initial credentials".to_owned()),
    )
}

pub(super) fn not_forwardable(login: &Login) -> Error {
    let Login { principal, realm, with } = login;
    let remedy = if *with == With::Cache {
        "Fill the cache with `kinit -f`, or set forwardable = true in krb5.conf before kinit. An account that is `sensitive \
         and cannot be delegated` or in Protected Users can never delegate."
    } else {
        "In Active Directory clear `Account is sensitive and cannot be delegated`, and take the account out of Protected \
         Users; or do without delegation."
    };
    detail(
        ErrorKind::Other,
        "kerberos.not_forwardable",
        format!("{realm} lets the ticket of {principal} not be delegated"),
        "Delegation needs a forwardable ticket-granting ticket, and this account's is not.",
        remedy,
        Some("KDC can't fulfill requested option".to_owned()),
    )
}

/// The ticket-granting ticket itself says that it cannot be forwarded.
pub(crate) fn ticket_not_forwardable(login: &Login) -> Error {
    not_forwardable(login)
}

pub(super) fn policy(login: &Login, asked: Asked<'_>) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.policy",
        format!("a policy of {} does not allow {}", login.realm, asked_text(login, asked)),
        "The account or the service is kept from it: logon restrictions, an authentication policy silo, or a flag of the \
         account.",
        "Look into the log of the KDC (Windows: Security, events 4768 and 4769), and change the policy or the account.",
        Some("KDC policy rejects request".to_owned()),
    )
}

pub(super) fn wrong_realm(login: &Login) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.wrong_realm",
        format!("{} does not live in {}", login.principal, login.realm),
        "The KDC refers the user to another realm.",
        "Write user@REALM with the realm (domain) that the account is in, and name its KDCs in krb5.conf or DNS.",
        Some("Realm not local to KDC while getting initial credentials".to_owned()),
    )
}
