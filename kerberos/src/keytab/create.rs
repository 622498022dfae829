//! Keys made of passwords, as ktutil's `addent -password` makes them.

use krb5::{Key, Principal};
use zeroize::Zeroizing;

use super::{Entry, Keytab, KeytabError, MAX_COMPONENTS, display};

/// How the key of one encryption type is made of the password. The KDC tells salt and parameters; where they are wrong, the key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The encryption type: one of [`CREATED_ENCTYPES`](super::CREATED_ENCTYPES).
    pub enctype: i32,
    /// The salt. Case matters.
    pub salt: Vec<u8>,
    /// The KDC's parameters (iterations), when it tells any.
    pub parameters: Option<[u8; 4]>,
}

impl Keytab {
    /// A keytab with one key for each recipe. Takes some tens of milliseconds of processor time for each: not for an async thread.
    pub fn from_password(
        principal: &Principal,
        password: &str,
        kvno: u32,
        timestamp: u32,
        recipes: &[Recipe],
    ) -> Result<Self, KeytabError> {
        let mut keytab = Self::default();
        for recipe in recipes {
            // The crate's own copy is not zeroed; it has no means to.
            let key = Key::from_password(recipe.enctype, password, &recipe.salt, recipe.parameters)
                .map_err(|error| KeytabError::Derive(error.to_string()))?;
            keytab.add(Entry {
                principal: display(&principal.components, &principal.realm),
                realm: principal.realm.clone(),
                components: principal.components.clone(),
                name_type: principal.name_type,
                kvno,
                enctype: recipe.enctype,
                timestamp,
                key: Zeroizing::new(key.bytes().to_vec()),
            });
        }
        Ok(keytab)
    }
}

/// The salt that a KDC uses unless it says otherwise: the realm, then each part of the name. For an Active Directory account the
/// case is that of the directory, which may not be the one typed.
pub fn default_salt(principal: &Principal) -> Vec<u8> {
    principal.default_salt()
}

/// A principal as MIT writes it, which is how entries name theirs.
pub fn principal_text(principal: &Principal) -> String {
    display(&principal.components, &principal.realm)
}

/// Reads `name@REALM` or `service/host@REALM`, with MIT's escapes. Without a realm, `default_realm` is taken.
pub fn parse_principal(text: &str, default_realm: Option<&str>) -> Result<Principal, KeytabError> {
    let refused = |why| KeytabError::Principal { text: text.chars().take(256).collect(), why };
    let mut components = vec![String::new()];
    let mut realm: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let literal = match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('b') => '\u{8}',
                Some('0') => '\0',
                Some(escaped) => escaped,
                None => return Err(refused("it ends with a backslash")),
            },
            '@' if realm.is_some() => return Err(refused("it has two @; write the one inside the name as \\@")),
            '@' => {
                realm = Some(String::new());
                continue;
            }
            '/' if realm.is_none() => {
                components.push(String::new());
                continue;
            }
            c => c,
        };
        match (&mut realm, components.last_mut()) {
            (Some(realm), _) => realm.push(literal),
            (None, Some(component)) => component.push(literal),
            (None, None) => {}
        }
    }
    let realm = match realm {
        Some(realm) => realm,
        None => default_realm.ok_or_else(|| refused("it has no realm; write name@REALM"))?.to_owned(),
    };
    if realm.is_empty() {
        return Err(refused("the realm is empty"));
    }
    if components.iter().any(String::is_empty) {
        return Err(refused("a part of the name is empty"));
    }
    if components.len() > MAX_COMPONENTS || text.len() > MAX_TEXT {
        return Err(refused("it is too long"));
    }
    let name_type = if components.first().is_some_and(|first| first == "krbtgt") { 2 } else { 1 };
    Ok(Principal::new(name_type, components, realm))
}

/// Longest principal that is read.
const MAX_TEXT: usize = 1024;
