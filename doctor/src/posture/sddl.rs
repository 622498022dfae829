//! Security descriptors as text ([MS-DTYP] 2.5.1): who may do what.
//!
//! Reads what Windows writes of access to the WinRM service and to session configurations. It judges nobody, looks nobody
//! up and evaluates no conditions: an entry with a condition is told with it. Bounded in length, entries and nesting;
//! whatever it does not know is an error, never nothing.
//!
//! [MS-DTYP]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-dtyp/

use std::fmt;

/// A security descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Owner.
    pub owner: Option<Sid>,
    /// Primary group.
    pub group: Option<Sid>,
    /// Who may do what. Nothing: everybody may do everything.
    pub access: Option<Vec<Entry>>,
    /// Entries of the system's list: what is audited.
    pub audited: Option<Vec<Entry>>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it does.
    pub kind: Kind,
    /// It only hands itself down, and says nothing about the object itself (`IO`).
    pub inherit_only: bool,
    /// Which rights, as a mask.
    pub mask: u32,
    /// Of whom.
    pub trustee: Sid,
    /// It holds under a condition, which is not evaluated.
    pub conditional: bool,
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Allows.
    Allow,
    /// Denies.
    Deny,
    /// Anything else: auditing, labels, policies. Gives nobody access.
    Other,
}

/// Who is meant: an alias of two letters, or a security identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(String);

/// Why a text is no security descriptor that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

/// Generic rights, and those that stand for them on objects of the service ([MS-WSMV] 3.1.4.1.28).
pub const GENERIC_ALL: u32 = 0x1000_0000;
/// Execute: shells.
pub const GENERIC_EXECUTE: u32 = 0x2000_0000;
/// Write: Put, Create, Delete.
pub const GENERIC_WRITE: u32 = 0x4000_0000;
/// Read: Get, Enumerate.
pub const GENERIC_READ: u32 = 0x8000_0000;

/// Bytes of a descriptor at most: a list has at most 64 KiB in binary form, and takes two or three times that as text.
const MAX_LENGTH: usize = 256 * 1024;
/// Entries at most. A list of 64 KiB has room for about 3,000.
const MAX_ENTRIES: usize = 4096;
/// Parentheses within parentheses of a condition.
const MAX_NESTING: usize = 64;

/// Reads a descriptor.
///
/// # Errors
/// [`Unreadable`] when it is malformed, beyond the bounds, or holds what nobody knows.
pub fn parse(text: &str) -> Result<Descriptor, Unreadable> {
    if text.len() > MAX_LENGTH {
        return Err(Unreadable { what: "it is too long" });
    }
    let mut descriptor = Descriptor::default();
    let mut seen = String::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Unreadable { what: "it is empty" });
    }
    while !rest.is_empty() {
        let part = rest.chars().next().unwrap_or_default();
        let after = rest.get(part.len_utf8()..).and_then(|after| after.strip_prefix(':'));
        let Some(after) = after.filter(|_| matches!(part, 'O' | 'G' | 'D' | 'S')) else {
            return Err(Unreadable { what: "a part is none of O:, G:, D: and S:" });
        };
        if seen.contains(part) {
            return Err(Unreadable { what: "a part comes twice" });
        }
        seen.push(part);
        rest = match part {
            'O' | 'G' => {
                let (sid, after) = owner(after)?;
                *(if part == 'O' { &mut descriptor.owner } else { &mut descriptor.group }) = Some(sid);
                after
            }
            _ => {
                let (entries, after) = list(after)?;
                if part == 'D' {
                    descriptor.access = entries;
                } else {
                    descriptor.audited = entries;
                }
                after
            }
        }
        .trim_start();
    }
    Ok(descriptor)
}

/// An owner ends where the next part begins, which only a look ahead shows: `O:NSG:BA` is `NS` and `BA`.
fn owner(text: &str) -> Result<(Sid, &str), Unreadable> {
    let text = text.trim_start();
    let end = match text.find(':') {
        // One letter before the colon belongs to the next part.
        Some(colon) => text.get(..colon).and_then(|before| before.char_indices().next_back()).map_or(0, |(at, _)| at),
        None => text.len(),
    };
    let (sid, rest) = text.split_at_checked(end).ok_or(Unreadable { what: "an owner is none" })?;
    Ok((Sid::parse(sid)?, rest))
}

/// Flags and entries of a list, nothing for one that says that there is no access control.
fn list(text: &str) -> Result<(Option<Vec<Entry>>, &str), Unreadable> {
    let end = text.find(['(', ':']).unwrap_or(text.len());
    let (mut flags, mut rest) = text.split_at_checked(end).unwrap_or((text, ""));
    if rest.starts_with(':') {
        // `D:PS:` is a list without entries; the S is the next part's.
        let at = flags.char_indices().next_back().map_or(0, |(at, _)| at);
        (flags, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    }
    let mut known: &str = &flags.split_whitespace().collect::<String>();
    let mut nobody_asked = false;
    while !known.is_empty() {
        known = match known {
            _ if known.starts_with("NO_ACCESS_CONTROL") => {
                nobody_asked = true;
                known.get("NO_ACCESS_CONTROL".len()..).unwrap_or_default()
            }
            _ if known.starts_with("AR") || known.starts_with("AI") => known.get(2..).unwrap_or_default(),
            _ if known.starts_with('P') => known.get(1..).unwrap_or_default(),
            _ => return Err(Unreadable { what: "a list has unknown flags" }),
        };
    }
    let mut entries = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix('(') {
        let end = closing(after)?;
        let (inside, after) = after.split_at_checked(end).ok_or(Unreadable { what: "an entry does not end" })?;
        if entries.len() == MAX_ENTRIES {
            return Err(Unreadable { what: "it has too many entries" });
        }
        entries.push(entry(inside)?);
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(((!nobody_asked).then_some(entries), rest))
}

/// Where the parenthesis that is open closes. Strings in conditions may hold anything.
fn closing(text: &str) -> Result<usize, Unreadable> {
    let (mut depth, mut quoted) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '(' if !quoted => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(Unreadable { what: "a condition is too deep" });
                }
            }
            ')' if !quoted && depth == 0 => return Ok(at),
            ')' if !quoted => depth -= 1,
            _ => {}
        }
    }
    Err(Unreadable { what: "an entry does not end" })
}

/// `type;flags;rights;object;inherited object;trustee[;condition or attribute]`.
fn entry(text: &str) -> Result<Entry, Unreadable> {
    let mut fields = text.splitn(7, ';').map(str::trim);
    let mut field = || fields.next().ok_or(Unreadable { what: "an entry has too few fields" });
    let (kind, flags, rights, _, _, trustee) = (field()?, field()?, field()?, field()?, field()?, field()?);
    let condition = fields.next();
    let kind = match kind {
        "A" | "OA" | "XA" | "ZA" => Kind::Allow,
        "D" | "OD" | "XD" => Kind::Deny,
        "AU" | "AL" | "OU" | "OL" | "XU" | "ML" | "RA" | "SP" | "TL" | "FL" => Kind::Other,
        _ => return Err(Unreadable { what: "an entry is of an unknown type" }),
    };
    let flags: String = flags.split_whitespace().collect();
    let pairs = pairs(&flags).ok_or(Unreadable { what: "an entry has unknown flags" })?;
    if pairs.iter().any(|flag| !FLAGS.contains(flag)) {
        return Err(Unreadable { what: "an entry has unknown flags" });
    }
    Ok(Entry {
        kind,
        inherit_only: pairs.contains(&"IO"),
        mask: mask(rights)?,
        trustee: Sid::parse(trustee)?,
        conditional: condition.is_some_and(|condition| !condition.is_empty()),
    })
}

/// Flags of entries.
const FLAGS: &[&str] = &["CI", "OI", "NP", "IO", "ID", "SA", "FA", "TP", "CR"];

/// Texts of two letters each.
fn pairs(text: &str) -> Option<Vec<&str>> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (pair, after) = rest.split_at_checked(2)?;
        pairs.push(pair);
        rest = after;
    }
    Some(pairs)
}

/// A number, or rights of two letters each.
fn mask(text: &str) -> Result<u32, Unreadable> {
    const UNKNOWN: Unreadable = Unreadable { what: "an entry gives unknown rights" };
    let text: String = text.split_whitespace().collect();
    if let Some(hexadecimal) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(hexadecimal, 16).map_err(|_| UNKNOWN);
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let octal = text.strip_prefix('0').filter(|rest| !rest.is_empty());
        return match octal {
            Some(octal) => u32::from_str_radix(octal, 8).map_err(|_| UNKNOWN),
            None => text.parse().map_err(|_| UNKNOWN),
        };
    }
    let mut mask = 0;
    for right in pairs(&text).ok_or(UNKNOWN)? {
        mask |= RIGHTS.iter().find(|(name, _)| *name == right).ok_or(UNKNOWN)?.1;
    }
    Ok(mask)
}

/// [MS-DTYP] 2.5.1.1, and the rights of files and registry keys that Windows writes too.
const RIGHTS: &[(&str, u32)] = &[
    ("GA", GENERIC_ALL),
    ("GX", GENERIC_EXECUTE),
    ("GW", GENERIC_WRITE),
    ("GR", GENERIC_READ),
    ("SD", 0x0001_0000),
    ("RC", 0x0002_0000),
    ("WD", 0x0004_0000),
    ("WO", 0x0008_0000),
    ("CC", 0x0001),
    ("DC", 0x0002),
    ("LC", 0x0004),
    ("SW", 0x0008),
    ("RP", 0x0010),
    ("WP", 0x0020),
    ("DT", 0x0040),
    ("LO", 0x0080),
    ("CR", 0x0100),
    ("FA", 0x001F_01FF),
    ("FR", 0x0012_0089),
    ("FW", 0x0012_0116),
    ("FX", 0x0012_00A0),
    ("KA", 0x000F_003F),
    ("KR", 0x0002_0019),
    ("KW", 0x0002_0006),
    ("KX", 0x0002_0019),
    ("NW", 0x0001),
    ("NR", 0x0002),
    ("NX", 0x0004),
];

impl Entry {
    /// The rights in words of the service: those that open something. Empty when there are none of them.
    #[must_use]
    pub fn rights(&self) -> String {
        let named: Vec<&str> = [
            (GENERIC_ALL, "full control"),
            (GENERIC_READ, "read"),
            (GENERIC_WRITE, "write"),
            (GENERIC_EXECUTE, "execute"),
        ]
        .into_iter()
        .filter(|(bit, _)| self.mask & bit != 0)
        .map(|(_, name)| name)
        .collect();
        match (named.is_empty(), self.mask) {
            (false, _) => named.join(", "),
            (true, 0) => String::new(),
            (true, mask) => format!("rights 0x{mask:X}"),
        }
    }
}

impl Sid {
    fn parse(text: &str) -> Result<Self, Unreadable> {
        const UNKNOWN: Unreadable = Unreadable { what: "it names somebody in an unknown way" };
        let text = text.trim();
        if let Some((alias, sid, _)) = KNOWN.iter().find(|(alias, ..)| !alias.is_empty() && *alias == text) {
            return Ok(Self(if sid.is_empty() { (*alias).to_owned() } else { (*sid).to_owned() }));
        }
        let mut parts = text.split('-');
        let parts_are_good = parts.next() == Some("S")
            && parts.next() == Some("1")
            && parts.next().is_some_and(|authority| match authority.strip_prefix("0x") {
                Some(hexadecimal) => hexadecimal.len() <= 12 && u64::from_str_radix(hexadecimal, 16).is_ok(),
                None => digits(authority) && authority.parse::<u64>().is_ok_and(|number| number < 1 << 48),
            });
        let count = parts.clone().count();
        let rest = parts.all(|part| digits(part) && part.parse::<u32>().is_ok());
        if !parts_are_good || !rest || !(1..=15).contains(&count) {
            return Err(UNKNOWN);
        }
        Ok(Self(text.to_owned()))
    }

    /// The security identifier; an alias where that depends on the domain.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its name, when it is known everywhere.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        KNOWN.iter().find(|(alias, sid, _)| self.0 == *sid || (sid.is_empty() && self.0 == *alias)).map(|known| known.2)
    }

    /// The last part of the identifier of somebody of a domain or machine.
    #[must_use]
    pub fn domain_rid(&self) -> Option<u32> {
        let domain = self.0.strip_prefix("S-1-5-21-")?;
        (domain.split('-').count() == 4).then(|| domain.rsplit('-').next()?.parse().ok()).flatten()
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Name and identifier.
impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => f.write_str(&self.0),
        }
    }
}

/// Alias, identifier (empty where it depends on the domain), name: [MS-DTYP] 2.4.2.4 and 2.5.1.1.
const KNOWN: &[(&str, &str, &str)] = &[
    ("WD", "S-1-1-0", "Everyone"),
    ("CO", "S-1-3-0", "Creator Owner"),
    ("CG", "S-1-3-1", "Creator Group"),
    ("OW", "S-1-3-4", "Owner Rights"),
    ("", "S-1-5-1", "Dialup"),
    ("NU", "S-1-5-2", "Network"),
    ("", "S-1-5-3", "Batch"),
    ("IU", "S-1-5-4", "Interactive"),
    ("SU", "S-1-5-6", "Service"),
    ("AN", "S-1-5-7", "Anonymous"),
    ("ED", "S-1-5-9", "Enterprise Domain Controllers"),
    ("PS", "S-1-5-10", "Self"),
    ("AU", "S-1-5-11", "Authenticated Users"),
    ("RC", "S-1-5-12", "Restricted Code"),
    ("", "S-1-5-15", "This Organization"),
    ("SY", "S-1-5-18", "Local System"),
    ("LS", "S-1-5-19", "Local Service"),
    ("NS", "S-1-5-20", "Network Service"),
    ("WR", "S-1-5-33", "Write Restricted"),
    ("", "S-1-5-113", "Local account"),
    ("", "S-1-5-114", "Local account and member of Administrators"),
    ("BA", "S-1-5-32-544", "Administrators"),
    ("BU", "S-1-5-32-545", "Users"),
    ("BG", "S-1-5-32-546", "Guests"),
    ("PU", "S-1-5-32-547", "Power Users"),
    ("AO", "S-1-5-32-548", "Account Operators"),
    ("SO", "S-1-5-32-549", "Server Operators"),
    ("PO", "S-1-5-32-550", "Print Operators"),
    ("BO", "S-1-5-32-551", "Backup Operators"),
    ("RE", "S-1-5-32-552", "Replicators"),
    ("RU", "S-1-5-32-554", "Pre-Windows 2000 Compatible Access"),
    ("RD", "S-1-5-32-555", "Remote Desktop Users"),
    ("NO", "S-1-5-32-556", "Network Configuration Operators"),
    ("MU", "S-1-5-32-558", "Performance Monitor Users"),
    ("LU", "S-1-5-32-559", "Performance Log Users"),
    ("IS", "S-1-5-32-568", "IIS Users"),
    ("CY", "S-1-5-32-569", "Cryptographic Operators"),
    ("ER", "S-1-5-32-573", "Event Log Readers"),
    ("CD", "S-1-5-32-574", "Certificate Service DCOM Access"),
    ("RA", "S-1-5-32-575", "RDS Remote Access Servers"),
    ("ES", "S-1-5-32-576", "RDS Endpoint Servers"),
    ("MS", "S-1-5-32-577", "RDS Management Servers"),
    ("HA", "S-1-5-32-578", "Hyper-V Administrators"),
    ("AA", "S-1-5-32-579", "Access Control Assistance Operators"),
    ("RM", "S-1-5-32-580", "Remote Management Users"),
    ("AC", "S-1-15-2-1", "All application packages"),
    ("LW", "S-1-16-4096", "Low integrity"),
    ("ME", "S-1-16-8192", "Medium integrity"),
    ("MP", "S-1-16-8448", "Medium plus integrity"),
    ("HI", "S-1-16-12288", "High integrity"),
    ("SI", "S-1-16-16384", "System integrity"),
    ("AS", "S-1-18-1", "Authentication authority asserted identity"),
    ("SS", "S-1-18-2", "Service asserted identity"),
    // Of the domain, or of the machine.
    ("LA", "", "the local Administrator account"),
    ("LG", "", "the local Guest account"),
    ("DA", "", "Domain Admins"),
    ("DU", "", "Domain Users"),
    ("DG", "", "Domain Guests"),
    ("DC", "", "Domain Computers"),
    ("DD", "", "Domain Controllers"),
    ("CA", "", "Certificate Publishers"),
    ("SA", "", "Schema Admins"),
    ("EA", "", "Enterprise Admins"),
    ("PA", "", "Group Policy Admins"),
    ("RS", "", "RAS and IAS Servers"),
    ("RO", "", "Enterprise Read-only Domain Controllers"),
    ("CN", "", "Cloneable Domain Controllers"),
    ("AP", "", "Protected Users"),
    ("KA", "", "Key Admins"),
    ("EK", "", "Enterprise Key Admins"),
    ("UD", "", "User-mode drivers"),
];

#[cfg(test)]
mod tests;
