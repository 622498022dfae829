//! What users and tasks write about targets: host, port, path, user name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use lictor_winrm::auth::basic;
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::target::{Credential, Endpoint, Scheme, Secret};

use crate::fields;

/// Host, path, user name and password, separated by a byte of value 0.
///
/// - An endpoint that is taken is a URL to the `http` crate too, with the same host, port and path, fits into a header, and
///   makes the same endpoint again.
/// - Basic writes what RFC 7617 says, or refuses. No error shows the password.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let [host, path, user, password] = fields(text.as_bytes()).map(String::from_utf8_lossy);
    let port = text.chars().next().map(|first| u32::from(first) as u16);
    for scheme in [Scheme::Http, Scheme::Https] {
        for path in [None, Some(&*path)] {
            endpoint(scheme, &host, port, path);
        }
    }
    credential(&user, &password);
}

fn endpoint(scheme: Scheme, host: &str, port: Option<u16>, path: Option<&str>) {
    let Ok(endpoint) = Endpoint::new(scheme, host, port, path) else { return };
    assert!(HeaderValue::from_str(&endpoint.authority()).is_ok());
    let url = endpoint.to_string();
    let parsed = url.parse::<Uri>();
    let Ok(parsed) = &parsed else {
        panic!("{url:?} is no URL: {parsed:?}");
    };
    let bare = parsed.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    assert_eq!(bare, Some(endpoint.host()), "{url}");
    assert_eq!(parsed.port_u16(), Some(endpoint.port()), "{url}");
    assert_eq!((parsed.path(), parsed.query()), (endpoint.path(), None), "{url}");
    let again = Endpoint::new(scheme, endpoint.host(), Some(endpoint.port()), Some(endpoint.path()));
    assert_eq!(again.as_ref(), Ok(&endpoint));
}

fn credential(user: &str, password: &str) {
    // What must not be shown, whatever else the password is.
    const MARKER: &str = "~marker-of-the-oracle~";
    let password = format!("{password}{MARKER}");
    let credential = Credential::password(user, Secret::new(password.clone()));
    let refused = match basic::authorization(&credential) {
        Ok(value) => {
            assert!(HeaderValue::from_str(&value).is_ok());
            let decoded = value.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
            assert_eq!(decoded, Some(format!("{user}:{password}").into_bytes()));
            assert!(!user.contains(':'), "a user name with a colon is read back as another one");
            None
        }
        Err(error) => Some(error),
    };
    let ntlm = [NtlmContext::raw(&credential, None).err(), NtlmContext::spnego(&credential, None).err()];
    let errors = ntlm.into_iter().chain([refused]).flatten().map(|error| error.to_string());
    for shown in errors.chain([format!("{credential:?}")]) {
        assert!(user.contains(MARKER) || !shown.contains(MARKER), "the password is in {shown:?}");
    }
}
