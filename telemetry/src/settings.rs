//! Where traces go: the settings, and the standard variables that count where the settings say nothing.
//!
//! It never keeps what a headers file holds; headers out of the environment are kept in a type that zeroes itself and are not
//! printed. Called by the loaders of both programs' settings, each of which has its own reader.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use lictor_settings::{Form, Reader};
use zeroize::Zeroizing;

/// Traces over OTLP: `telemetry` in the settings of both programs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Where an OpenTelemetry collector takes OTLP over gRPC. Without it nothing is traced. See [observability.md](observability.md).
    pub otlp_endpoint: Option<String>,
    /// File with headers that the collector wants, one `name: value` a line, such as an API key; at most 32 and 64 KiB. Read again when
    /// it changes. Example: `/etc/lictor/otlp/headers`.
    pub otlp_headers_file: Option<PathBuf>,
    /// PEM certificates of the authorities that are trusted for the collector; else the system's. Example:
    /// `/etc/lictor/otlp/ca.pem`.
    pub otlp_ca_file: Option<PathBuf>,
    /// Share of the traces that begin here which are exported; whoever began a trace elsewhere has decided about it.
    pub sample_ratio: f64,
    /// Name of the service in traces.
    pub service_name: String,
}

impl Settings {
    /// Reads them. `service` is what the program is called.
    pub fn read(reader: &mut Reader, service: &'static str) -> Self {
        let name = Form::Text { least: 1, most: MAX_NAME };
        let settings = Self {
            otlp_endpoint: reader.optional("telemetry.otlp_endpoint", ENDPOINT_FORM, parse_endpoint),
            otlp_headers_file: reader.optional_path("telemetry.otlp_headers_file"),
            otlp_ca_file: reader.optional_path("telemetry.otlp_ca_file"),
            sample_ratio: reader.share("telemetry.sample_ratio", DEFAULT_RATIO),
            service_name: reader.or("telemetry.service_name", name, service.to_owned(), parse_service_name),
        };
        if settings.otlp_headers_file.is_some() && settings.is_in_clear() {
            reader.mistake(
                "telemetry.otlp_headers_file",
                "these headers would go out in clear: telemetry.otlp_endpoint must be https://, or on this machine",
            );
        }
        settings
    }

    /// Whether everybody on the way to the collector can read what goes to it.
    fn is_in_clear(&self) -> bool {
        let Some(url) = self.otlp_endpoint.as_deref().and_then(|endpoint| url::Url::parse(endpoint).ok()) else {
            return false;
        };
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => false,
        };
        url.scheme() != "https" && !here
    }

    /// Nothing is traced.
    #[must_use]
    pub fn off(service_name: &str) -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers_file: None,
            otlp_ca_file: None,
            sample_ratio: DEFAULT_RATIO,
            service_name: service_name.to_owned(),
        }
    }
}

/// Where traces go, all considered.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The settings, and what the standard variables say where those say nothing.
    pub settings: Settings,
    /// Headers out of the environment, where no file is named.
    pub headers: Headers,
    /// Further facts about this process for each trace.
    pub resource: Vec<(String, String)>,
    /// What there is to say about the standard variables, for people.
    pub remarks: Vec<String>,
}

impl Traces {
    /// Nothing is traced.
    #[must_use]
    pub fn off() -> Self {
        Self { settings: Settings::off(""), headers: Headers::default(), resource: Vec::new(), remarks: Vec::new() }
    }

    /// By the settings, into which [`Standard::defaults`] went already, and what else the variables say.
    #[must_use]
    pub fn new(mut settings: Settings, standard: Standard) -> Self {
        if standard.disabled() {
            settings.otlp_endpoint = None;
        }
        let resource = standard.attributes().into_iter().filter(|(key, _)| key != "service.name").collect();
        let mut remarks = standard.remarks(settings.otlp_endpoint.is_some());
        let mut headers = standard.headers.filter(|_| settings.otlp_headers_file.is_none());
        if let Some((name, _)) = headers.take_if(|_| settings.is_in_clear()) {
            remarks.push(format!(
                "{name} is passed over: the headers would go out in clear, as the collector's address begins with http:// \
                 and is not on this machine"
            ));
        }
        let headers = headers.map(|(_, headers)| headers).unwrap_or_default();
        Self { settings, headers, resource, remarks }
    }
}

/// Headers for the collector. May hold an API key: it prints nothing of itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Option<Zeroizing<String>>);

impl Headers {
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.as_ref().map(|text| text.as_str())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "[redacted]" } else { "none" })
    }
}

/// The standard variables, out of an environment.
#[derive(Debug, Default)]
pub struct Standard {
    values: BTreeMap<&'static str, String>,
    headers: Option<(&'static str, Headers)>,
}

impl Standard {
    /// Takes one variable, if it is one of them. Empty ones count as unset, as the specification has it.
    pub fn takes(&mut self, name: &str, value: &str) {
        if value.trim().is_empty() {
            return;
        }
        if let Some(known) = HEADERS.iter().position(|known| *known == name) {
            // The first that counts stands first.
            let better =
                self.headers.as_ref().is_none_or(|(other, _)| HEADERS.iter().position(|it| it == other) > Some(known));
            if let Some(name) = HEADERS.get(known).filter(|_| better) {
                self.headers = Some((name, Headers(Some(Zeroizing::new(value.to_owned())))));
            }
        } else if let Some(name) = KNOWN.iter().find(|known| **known == name) {
            self.values.insert(name, value.trim().to_owned());
        }
    }

    /// Whether they switch all of it off.
    #[must_use]
    pub fn disabled(&self) -> bool {
        self.values.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || self.values.get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
    }

    /// Whatever they have to say about settings: key, value and the variable that it comes from. What makes no sense is left
    /// out, and told by `Standard::remarks`: they are for many programs, and none of them should refuse to start over one.
    #[must_use]
    pub fn defaults(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut defaults = Vec::new();
        if let Some((name, endpoint)) = self.endpoint()
            && self.foreign_protocol().is_none()
            && parse_endpoint(endpoint).is_ok()
        {
            defaults.push(("telemetry.otlp_endpoint", endpoint.to_owned(), name));
        }
        if let Some((name, ratio)) = self.ratio() {
            defaults.push(("telemetry.sample_ratio", ratio.to_string(), name));
        }
        if let Some(name) = self.values.get("OTEL_SERVICE_NAME").filter(|name| parse_service_name(name).is_ok()) {
            defaults.push(("telemetry.service_name", name.clone(), "OTEL_SERVICE_NAME"));
        } else if let Some((_, name)) = self.attributes().into_iter().find(|(key, _)| key == "service.name") {
            defaults.push(("telemetry.service_name", name, "OTEL_RESOURCE_ATTRIBUTES"));
        }
        defaults
    }

    /// Sets what they say where nothing else does.
    pub fn apply(&self, reader: &mut Reader) {
        for (key, value, source) in self.defaults() {
            reader.set_default(key, &value, source);
        }
    }

    /// Which variable the headers come from.
    #[must_use]
    pub fn headers_source(&self) -> Option<&'static str> {
        self.headers.as_ref().map(|(name, _)| *name)
    }

    fn remarks(&self, traced: bool) -> Vec<String> {
        let mut remarks = Vec::new();
        if let (Some((name, endpoint)), false, false) = (self.endpoint(), traced, self.disabled()) {
            if let Some((name, protocol)) = self.foreign_protocol() {
                remarks.push(format!("{name} is {protocol}, and only grpc is spoken here; nothing is traced"));
            } else if let Err(error) = parse_endpoint(endpoint) {
                remarks.push(format!("{name} {error}; nothing is traced"));
            }
        }
        if self.values.contains_key("OTEL_TRACES_SAMPLER") && self.ratio().is_none() {
            remarks
                .push("OTEL_TRACES_SAMPLER or its argument is none that is known here; it is passed over".to_owned());
        }
        remarks
    }

    fn endpoint(&self) -> Option<(&'static str, &str)> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        names.into_iter().find_map(|name| Some((name, self.values.get(name)?.as_str())))
    }

    fn foreign_protocol(&self) -> Option<(&'static str, &str)> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let chosen = names.into_iter().find_map(|name| Some((name, self.values.get(name)?.as_str())));
        chosen.filter(|(_, protocol)| *protocol != "grpc")
    }

    fn ratio(&self) -> Option<(&'static str, f64)> {
        let argument = self.values.get(ARGUMENT).and_then(|text| parse_ratio(text).ok());
        match self.values.get("OTEL_TRACES_SAMPLER").map(String::as_str) {
            Some("always_on" | "parentbased_always_on") => Some(("OTEL_TRACES_SAMPLER", 1.0)),
            Some("always_off" | "parentbased_always_off") => Some(("OTEL_TRACES_SAMPLER", 0.0)),
            Some("traceidratio" | "parentbased_traceidratio") | None => argument.map(|ratio| (ARGUMENT, ratio)),
            Some(_) => None,
        }
    }

    fn attributes(&self) -> Vec<(String, String)> {
        let Some(text) = self.values.get("OTEL_RESOURCE_ATTRIBUTES") else { return Vec::new() };
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), decoded(value.trim())));
        pairs.filter(|(key, value)| !key.is_empty() && value.len() <= MAX_VALUE).take(MAX_ATTRIBUTES).collect()
    }
}

/// An address of a collector.
///
/// # Errors
/// What is wrong with it, in words that do not repeat it.
pub fn parse_endpoint(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with http:// or https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password; use telemetry.otlp_headers_file".into());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no path, query or fragment: OTLP over gRPC has none".into());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A share.
///
/// # Errors
/// What it must be.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| "must be a number from 0 to 1".into())
}

/// A service's name.
///
/// # Errors
/// What is wrong with it.
pub fn parse_service_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("must have 1 to {MAX_NAME} characters, none of them control characters"));
    }
    Ok(text.to_owned())
}

/// Names and values of headers: lines with colons, as in a file, or pairs with equals signs and commas between them, as in the
/// standard variables, whose values are percent-encoded. Nothing is said about what does not parse but where it stands.
pub(crate) fn parse_headers(text: &str) -> Result<Vec<(String, Zeroizing<String>)>, String> {
    let mut headers = Vec::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let in_line: Vec<(&str, Zeroizing<String>)> = match line.split_once(':') {
            Some((name, value)) if is_name(name.trim()) => vec![(name, Zeroizing::new(value.trim().to_owned()))],
            _ => {
                let pairs = line.split(',').filter(|pair| !pair.trim().is_empty());
                let pairs = pairs.map(|pair| pair.split_once('=').ok_or(number));
                let pairs = pairs.map(|pair| pair.map(|(name, value)| (name, Zeroizing::new(decoded(value.trim())))));
                pairs.collect::<Result<_, usize>>().map_err(no_header)?
            }
        };
        for (name, value) in in_line {
            let sound = value.len() <= MAX_VALUE && value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            if !is_name(name.trim()) || !sound || headers.len() == MAX_HEADERS {
                return Err(no_header(number));
            }
            headers.push((name.trim().to_ascii_lowercase(), value));
        }
    }
    Ok(headers)
}

fn no_header(number: usize) -> String {
    format!("entry {} is no header, or one too many", number + 1)
}

/// Percent-decoded, as far as that yields text.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).filter(|_| *first == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Variables by the setting that they count for, for the reference.
pub const VARIABLES: [(&str, &[&str]); 4] = [
    ("telemetry.otlp_endpoint", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ("telemetry.otlp_headers_file", &HEADERS),
    ("telemetry.sample_ratio", &[ARGUMENT]),
    ("telemetry.service_name", &["OTEL_SERVICE_NAME"]),
];
const ENDPOINT_FORM: Form = Form::Written {
    pattern: "^https?://[^/@?#]+/?$",
    words: "`http://host:port`, `https://host:port`",
    example: "https://collector.example:4317",
};
/// The variables that hold secrets, the first that counts first.
pub const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const KNOWN: [&str; 10] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_TRACES_SAMPLER",
    ARGUMENT,
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
];
/// Tasks are few beside requests to a web site: all are worth a trace until somebody says otherwise.
pub const DEFAULT_RATIO: f64 = 1.0;
const MAX_NAME: usize = 128;
const MAX_ATTRIBUTES: usize = 64;
const MAX_HEADERS: usize = 32;
const MAX_VALUE: usize = 16 * 1024;
/// A file of headers.
pub(crate) const MAX_HEADERS_FILE: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn standard(pairs: &[(&str, &str)]) -> Standard {
        let mut standard = Standard::default();
        for (name, value) in pairs {
            standard.takes(name, value);
        }
        standard
    }

    #[test]
    fn the_variable_for_traces_goes_before_the_one_for_all() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317");
        for pairs in [[all, traces], [traces, all]] {
            let defaults = standard(&pairs).defaults();
            assert_eq!(defaults, [("telemetry.otlp_endpoint", traces.1.to_owned(), traces.0)]);
        }
        let headers = [("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")];
        for pairs in [headers, [headers[1], headers[0]]] {
            let (name, text) = standard(&pairs).headers.unwrap();
            assert_eq!((name, text.text()), (HEADERS[0], Some("b=2")));
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_and_does_no_harm() {
        let standard = standard(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_SERVICE_NAME", ""),
        ]);
        assert_eq!(standard.defaults(), []);
        let traces = Traces::new(Settings::off("x"), standard);
        assert_eq!(traces.remarks.len(), 2, "{:?}", traces.remarks);
    }

    #[test]
    fn samplers_and_attributes_are_those_of_the_specification() {
        let ratio = |pairs: &[(&str, &str)]| standard(pairs).ratio().map(|(_, ratio)| ratio);
        assert_eq!(ratio(&[("OTEL_TRACES_SAMPLER", "always_off")]), Some(0.0));
        assert_eq!(ratio(&[("OTEL_TRACES_SAMPLER", "parentbased_always_on")]), Some(1.0));
        let both = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(ratio(&both), Some(0.25));
        assert_eq!(ratio(&[("OTEL_TRACES_SAMPLER_ARG", "7")]), None);
        let standard = standard(&[("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=lictor%2D1, service.name=a b,broken")]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(standard.attributes(), [pair("k8s.pod.name", "lictor-1"), pair("service.name", "a b")]);
        assert_eq!(standard.defaults()[0].1, "a b");
    }

    #[test]
    fn headers_do_not_leave_the_machine_in_clear() {
        let at = |endpoint: &str| Settings { otlp_endpoint: Some(endpoint.into()), ..Settings::off("x") };
        let of_variables = |endpoint: &str| {
            let traces = Traces::new(at(endpoint), standard(&[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=Mark3r")]));
            (traces.headers.text().is_some(), traces.remarks)
        };
        for safe in ["https://collector:4317", "http://localhost:4317", "http://127.0.0.2:4317", "http://[::1]:4317"] {
            assert_eq!(of_variables(safe), (true, Vec::new()), "{safe}");
            assert_eq!(mistakes(safe, true), Vec::<String>::new(), "{safe}");
        }
        for clear in ["http://collector:4317", "http://192.0.2.1", "http://localhost.example:4317", "http://[fe80::1]"]
        {
            let (sent, remarks) = of_variables(clear);
            assert!(!sent && remarks.len() == 1, "{clear}: {remarks:?}");
            assert!(remarks[0].contains("OTEL_EXPORTER_OTLP_HEADERS") && !remarks[0].contains("Mark3r"), "{remarks:?}");
            let mistakes_of = mistakes(clear, true);
            assert!(mistakes_of.len() == 1 && mistakes_of[0].contains("in clear"), "{clear}: {mistakes_of:?}");
            // Without headers there is nothing to hide.
            assert_eq!(mistakes(clear, false), Vec::<String>::new());
        }
    }

    fn mistakes(endpoint: &str, headers: bool) -> Vec<String> {
        let layers = lictor_settings::Layers::read("P_", None, []).unwrap();
        let mut reader = Reader::new(layers.tree, &[], Vec::new());
        reader.set_default("telemetry.otlp_endpoint", endpoint, "test");
        if headers {
            reader.set_default("telemetry.otlp_headers_file", "/etc/lictor/otlp/headers", "test");
        }
        Settings::read(&mut reader, "x");
        reader.mistakes()
    }

    #[test]
    fn switched_off_is_off_whatever_the_settings_say() {
        let settings = Settings { otlp_endpoint: Some("http://collector:4317".into()), ..Settings::off("x") };
        let traces = Traces::new(settings, standard(&[("OTEL_SDK_DISABLED", "TRUE")]));
        assert_eq!(traces.settings.otlp_endpoint, None);
    }

    #[test]
    fn headers_come_in_both_forms_and_are_never_repeated() {
        let shown = |text: &str| {
            let headers = parse_headers(text)?;
            Ok::<_, String>(
                headers.into_iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            shown("# for the collector\nApi-Key: Mark3r=\n\nX-Tenant: a b\n"),
            Ok(vec!["api-key=Mark3r=".into(), "x-tenant=a b".into()])
        );
        assert_eq!(shown("api-key=Mark3r,x-tenant=a%20b"), Ok(vec!["api-key=Mark3r".into(), "x-tenant=a b".into()]));
        assert_eq!(shown("authorization=Basic a:b"), Ok(vec!["authorization=Basic a:b".into()]));
        for wrong in ["Mark3r", "a b: Mark3r", "a: Mark\u{3b1}r", "=Mark3r"] {
            let error = shown(wrong).unwrap_err();
            assert!(!error.contains("Mark"), "{error}");
        }
        assert_eq!(format!("{:?}", Headers(Some(Zeroizing::new("Mark3r".into())))), "[redacted]");
    }

    #[test]
    fn an_endpoint_has_no_path_and_no_password() {
        assert_eq!(parse_endpoint("http://collector.example:4317/"), Ok("http://collector.example:4317".into()));
        for wrong in [
            "collector:4317",
            "grpc://collector:4317",
            "http://a:Mark3r@collector",
            "http://collector/v1/traces",
            "http://",
        ] {
            let error = parse_endpoint(wrong).unwrap_err();
            assert!(!error.contains("Mark3r"), "{error}");
        }
    }
}
