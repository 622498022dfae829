use uuid::Uuid;

use super::*;
use crate::soap::uri;
use crate::wsman::{Listed, Listing, Requests, Response, parse};

const MESSAGE: Uuid = Uuid::from_u128(0xAABB_CCDD);

fn answer(body: &str) -> Response {
    let message = format!(
        "<s:Envelope xmlns:s='{}' xmlns:a='{}' xmlns:w='{}' xmlns:n='{}'><s:Header><a:RelatesTo>uuid:{MESSAGE}</a:RelatesTo>\
         </s:Header><s:Body>{body}</s:Body></s:Envelope>",
        uri::SOAP,
        uri::ADDRESSING,
        uri::WSMAN,
        uri::ENUMERATION
    );
    parse(message.as_bytes(), Some(MESSAGE)).unwrap()
}

fn config(inner: &str) -> Config {
    match answer(&format!("<cfg:Config xmlns:cfg='{}'>{inner}</cfg:Config>", uri::CONFIG)) {
        Response::Configured(config) => *config,
        other => panic!("{other:?}"),
    }
}

fn listed(items: &str) -> Listed {
    let body = format!(
        "<n:EnumerateResponse><n:EnumerationContext/><w:Items>{items}</w:Items><w:EndOfSequence/></n:EnumerateResponse>"
    );
    match answer(&body) {
        Response::Listed(listed) => listed,
        other => panic!("{other:?}"),
    }
}

fn by_host<T>(value: T) -> Option<Setting<T>> {
    Some(Setting { value, by_policy: false })
}

#[test]
fn what_is_not_told_is_unknown() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("<cfg:Service/><cfg:Client><cfg:Auth/></cfg:Client>"), Config::default());
}

#[test]
fn a_value_of_an_unknown_form_is_unknown() {
    let config = config(
        "<cfg:MaxTimeoutms>soon</cfg:MaxTimeoutms><cfg:MaxBatchItems>-1</cfg:MaxBatchItems><cfg:Service>\
         <cfg:AllowUnencrypted>no</cfg:AllowUnencrypted><cfg:Auth><cfg:Basic/><cfg:Kerberos>TRUE</cfg:Kerberos>\
         <cfg:Negotiate>0</cfg:Negotiate><cfg:CbtHardeningLevel>Hard</cfg:CbtHardeningLevel></cfg:Auth></cfg:Service>",
    );
    assert_eq!((config.max_timeout_ms, config.max_batch_items), (None, None));
    let Auth { basic, kerberos, negotiate, cbt_hardening_level, .. } = config.service.auth;
    assert_eq!((config.service.allow_unencrypted, basic, cbt_hardening_level), (None, None, None));
    assert_eq!((kerberos, negotiate), (by_host(true), by_host(false)));
}

#[test]
fn a_policy_is_told_from_the_host() {
    let config = config(
        "<cfg:Service><cfg:AllowUnencrypted Source='GPO'>false</cfg:AllowUnencrypted>\
         <cfg:Auth><cfg:Basic Source=\"GPO\">true</cfg:Basic><cfg:CbtHardeningLevel>strict</cfg:CbtHardeningLevel></cfg:Auth>\
         <cfg:IPv4Filter Source=\"GPO\">192.0.2.1-192.0.2.9</cfg:IPv4Filter></cfg:Service>",
    );
    assert_eq!(config.service.allow_unencrypted, Some(Setting { value: false, by_policy: true }));
    assert_eq!(config.service.auth.basic, Some(Setting { value: true, by_policy: true }));
    assert_eq!(config.service.auth.cbt_hardening_level, by_host(CbtHardeningLevel::Strict));
    assert_eq!(config.service.ipv4_filter, Some(Setting { value: "192.0.2.1-192.0.2.9".to_owned(), by_policy: true }));
}

#[test]
fn names_of_other_namespaces_are_not_settings() {
    let config = config(
        "<o:Service xmlns:o='http://schemas.microsoft.com/wbem/wsman/1/configuration'><o:AllowUnencrypted>false\
         </o:AllowUnencrypted></o:Service>",
    );
    assert_eq!(config, Config::default());
}

/// As `winrm enumerate winrm/config/listener -format:xml` shows it on hosts, and as Get-WSManInstance shows the namespace.
#[test]
fn listeners_are_read_in_the_namespace_of_hosts_and_in_that_of_the_schema() {
    for namespace in ["http://schemas.microsoft.com/wbem/wsman/1/config/listener", uri::CONFIG] {
        let listed = listed(&format!(
            "<cfg:Listener xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:cfg=\"{namespace}\" Source=\"GPO\" \
             xml:lang=\"en-US\"><cfg:Address>*</cfg:Address><cfg:Transport>HTTP</cfg:Transport><cfg:Port>5985</cfg:Port>\
             <cfg:Hostname/><cfg:Enabled>true</cfg:Enabled><cfg:URLPrefix>wsman</cfg:URLPrefix><cfg:CertificateThumbprint/>\
             <cfg:ListeningOn>127.0.0.1</cfg:ListeningOn><cfg:ListeningOn>192.0.2.69</cfg:ListeningOn>\
             <cfg:ListeningOn>fe80::e178:3a59:b8cc:85d5%5</cfg:ListeningOn></cfg:Listener>\
             <cfg:Listener xmlns:cfg=\"{namespace}\"><cfg:Address>IP:192.0.2.69</cfg:Address><cfg:Transport>HTTPS</cfg:Transport>\
             <cfg:Port Source=\"GPO\">70000</cfg:Port></cfg:Listener>"
        ));
        let [first, second] = &listed.listeners[..] else { panic!("{listed:?}") };
        assert_eq!(
            *first,
            Listener {
                source: Some("GPO".to_owned()),
                address: Some("*".to_owned()),
                transport: Some("HTTP".to_owned()),
                port: Some(5985),
                hostname: Some(String::new()),
                enabled: Some(true),
                url_prefix: Some("wsman".to_owned()),
                certificate_thumbprint: Some(String::new()),
                listening_on: ["127.0.0.1", "192.0.2.69", "fe80::e178:3a59:b8cc:85d5%5"].map(str::to_owned).to_vec(),
            }
        );
        assert_eq!((second.port, second.enabled, second.source.as_deref()), (None, None, Some("GPO")));
        assert_eq!(listed.more, None);
    }
}

#[test]
fn the_password_of_a_mapping_is_not_read() {
    let listed = listed(
        "<cert:CertMapping xmlns:cert='http://schemas.microsoft.com/wbem/wsman/1/config/service/certmapping'><cert:URI>*</cert:URI>\
         <cert:Subject>*@corp.example</cert:Subject><cert:Issuer>4B1A</cert:Issuer><cert:UserName>runner</cert:UserName>\
         <cert:Enabled>true</cert:Enabled><cert:Password>do not keep</cert:Password></cert:CertMapping>",
    );
    let [mapping] = &listed.mappings[..] else { panic!("{listed:?}") };
    assert_eq!((mapping.subject.as_deref(), mapping.enabled), (Some("*@corp.example"), Some(true)));
    assert!(!format!("{listed:?}").contains("do not keep"));
}

/// Else a host with mappings in a form of its own would seem to have none.
#[test]
fn items_that_cannot_be_read_are_not_taken_for_none() {
    let items = format!(
        "<cfg:CertMapping xmlns:cfg='{0}'><cfg:Subject>a@corp.example</cfg:Subject></cfg:CertMapping>\
         <CertMapping><Subject>*</Subject></CertMapping><cfg:Mapping xmlns:cfg='{0}'/>",
        uri::CONFIG
    );
    let listed = listed(&items);
    assert_eq!((listed.mappings.len(), listed.unread), (1, 2));
    let mappings = listed.clone().into_mappings();
    assert_eq!(mappings.iter().filter(|mapping| mapping.subject.is_none()).count(), 2, "{mappings:?}");
    assert_eq!(listed.into_listeners(), [Listener::default(), Listener::default()]);
}

#[test]
fn values_are_bounded_and_on_one_line() {
    let long = "A".repeat(MAX_VALUE + 1);
    let config = config(&format!(
        "<cfg:Service><cfg:RootSDDL>{long}</cfg:RootSDDL><cfg:IPv6Filter>\n a\u{85}b\t c&#x9b;2J </cfg:IPv6Filter></cfg:Service>"
    ));
    assert_eq!(config.service.root_sddl, None);
    assert_eq!(config.service.ipv6_filter, by_host("a b c\u{fffd}2J".to_owned()));
    let addresses = "<cfg:ListeningOn>192.0.2.1</cfg:ListeningOn>".repeat(MAX_ADDRESSES + 10);
    let listed = listed(&format!("<cfg:Listener xmlns:cfg='{}'>{addresses}</cfg:Listener>", uri::CONFIG));
    assert_eq!(listed.listeners[0].listening_on.len(), MAX_ADDRESSES);
}

#[test]
fn requests_name_the_resource_and_no_shell() {
    let requests =
        Requests::new("http://win01:5985/wsman".into(), Uuid::from_u128(7), std::time::Duration::from_secs(20));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let get = text(requests.configuration(MESSAGE).unwrap());
    assert!(
        get.contains("<wsman:ResourceURI s:mustUnderstand=\"true\">http://schemas.microsoft.com/wbem/wsman/1/config<")
    );
    assert!(get.contains("2004/09/transfer/Get</wsa:Action>") && get.ends_with("</s:Header><s:Body/></s:Envelope>"));
    let list = text(requests.list(MESSAGE, Listing::Listeners).unwrap());
    assert!(list.contains("wsman/1/config/listener</wsman:ResourceURI>") && !list.contains("Selector"));
    let more = text(requests.list_more(MESSAGE, Listing::CertificateMappings, "uuid:7").unwrap());
    assert!(more.contains("wsman/1/config/service/certmapping</wsman:ResourceURI>") && more.contains(">uuid:7<"));
}
