//! Patterns of ARNs, and of the URLs that AWS is called at. Pure.

use super::identity::fits;

/// `arn:aws:kms:*:111122223333:key/*`. Compared with case, as AWS does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArnPattern {
    /// The texts between the asterisks.
    parts: Vec<String>,
}

impl ArnPattern {
    /// Of things of one service: `kms`, `iam`.
    pub(super) fn parse(text: &str, service: &str) -> Result<Self, String> {
        let text = text.trim();
        let fields: Vec<&str> = text.splitn(6, ':').collect();
        let is_arn =
            matches!(fields.as_slice(), ["arn", _, named, _, _, resource] if *named == service && !resource.is_empty());
        if text != "*" && (!is_arn || text.chars().any(|c| c.is_whitespace() || c.is_control())) {
            return Err(format!("is no ARN of {service}, such as arn:aws:{service}:..., and not `*`"));
        }
        Ok(Self { parts: text.split('*').map(str::to_owned).collect() })
    }

    /// Whether the whole ARN fits. An asterisk stands for anything within one part of it, so for anything but `:`; alone it
    /// stands for everything, also for keys that are named otherwise.
    pub(super) fn matches(&self, arn: &str) -> bool {
        is_any(&self.parts) || fits(&self.parts, arn, &[':'])
    }
}

/// `https://*.kms.eu-central-1.vpce.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointPattern {
    parts: Vec<String>,
}

impl EndpointPattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)).unwrap_or_default();
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '@' | '\\' | '%');
        if text == "*" {
            return Ok(Self { parts: vec![String::new(), String::new()] });
        }
        if authority.is_empty() || authority.contains(odd) {
            return Err("is no URL such as https://host[:port], and not `*`".into());
        }
        let text = text.strip_suffix('/').unwrap_or(&text);
        Ok(Self { parts: text.split('*').map(str::to_owned).collect() })
    }

    /// Whether it is one of these. An asterisk stands for a label of a name or for a port; alone it stands for everything.
    pub(super) fn matches(&self, endpoint: &str) -> bool {
        if is_any(&self.parts) {
            return true;
        }
        let Ok(url) = url::Url::parse(endpoint) else { return false };
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        let (Some(host), true, true) = (url.host_str(), bare, nobody) else { return false };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        fits(&self.parts, &format!("{}://{host}{port}", url.scheme()), &['/', ':', '.', '@'])
    }
}

fn is_any(parts: &[String]) -> bool {
    parts.len() == 2 && parts.iter().all(String::is_empty)
}
