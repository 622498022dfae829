//! The faults that a Windows host answers with: codes, subcodes, texts and the envelope they travel in.
//!
//! The texts and the element tree are those of the recordings where there is one; codes and subcodes are those of `wsmerror.h`.

use serde::{Deserialize, Serialize};

use crate::soap::escape;

/// How a fault is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Style {
    /// The element that carries the code. Default `wsman-fault`.
    pub form: Form,
    /// Codes above 2^31 are negative numbers, as some hosts write them. Default false.
    pub signed: bool,
}

/// The element in the detail of a fault that carries its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `WSManFault`.
    #[default]
    WsmanFault,
    /// `MSFT_WmiError`, as newer hosts report quotas.
    WmiError,
}

/// A fault on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The `Code` attribute of `WSManFault`: an `ERROR_WSMAN_*` or a Win32 code.
    pub(crate) code: u32,
    role: Role,
    subcode: &'static str,
    detail: Option<&'static str>,
    /// The text of the fault where it is not that of its detail.
    reason: Option<&'static str>,
    message: String,
    /// Provider and path of the `ProviderFault`, for faults that come from the shell plug-in.
    provider: Option<&'static str>,
    /// How it is to be written, when that was ordered.
    style: Option<Style>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
    MustUnderstand,
}

const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault";
const MANAGEMENT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault";

const INVALID_SELECTORS: &str = "The WS-Management service cannot process the request because the request contained invalid selectors for the resource. ";

impl Fault {
    fn sender(code: u32, subcode: &'static str, detail: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            code,
            role: Role::Sender,
            subcode,
            detail,
            reason: None,
            message: message.into(),
            provider: None,
            style: None,
        }
    }

    fn receiver(code: u32, subcode: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            role: Role::Receiver,
            subcode,
            detail: None,
            reason: None,
            message: message.into(),
            provider: None,
            style: None,
        }
    }

    pub(crate) fn timed_out() -> Self {
        Self::receiver(
            2_150_858_793,
            "w:TimedOut",
            "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.  ",
        )
    }

    pub(crate) fn shell_not_found(id: &str) -> Self {
        Self::not_there(format!(
            "The request for the Windows Remote Shell with ShellId {id} failed because the shell was not found on the server. \
             Possible causes are: the specified ShellId is incorrect or the shell no longer exists on the server. Provide the \
             correct ShellId or create a new shell and retry the operation. "
        ))
    }

    pub(crate) fn command_not_found() -> Self {
        Self::not_there(
            "The Windows Remote Shell received a request to perform an operation on a command identifier that does not exist. \
             Either the command has completed execution or the client specified an invalid command identifier. ",
        )
    }

    fn not_there(message: impl Into<String>) -> Self {
        Self { message: message.into(), reason: Some(INVALID_SELECTORS), ..Self::unexpected_selectors() }
    }

    pub(crate) fn unexpected_selectors() -> Self {
        Self::sender(2_150_858_843, "w:InvalidSelectors", Some("UnexpectedSelectors"), INVALID_SELECTORS)
    }

    pub(crate) fn insufficient_selectors() -> Self {
        Self::sender(
            2_150_858_842,
            "w:InvalidSelectors",
            Some("InsufficientSelectors"),
            "The WS-Management service cannot process the request because the request did not contain all required selectors. ",
        )
    }

    pub(crate) fn invalid_shell_id() -> Self {
        Self::sender(
            2_150_858_845,
            "w:InvalidSelectors",
            Some("InvalidValue"),
            "The WS-Management service cannot process the request because a value for the selector is invalid. ",
        )
    }

    pub(crate) fn resource_not_found(uri: &str) -> Self {
        Self::sender(
            2_150_858_752,
            "a:DestinationUnreachable",
            Some("InvalidResourceURI"),
            format!(
                "The WS-Management service cannot process the request. The service cannot find the resource identified by the \
                 resource URI and selectors ({uri}). "
            ),
        )
    }

    pub(crate) fn action_not_supported() -> Self {
        Self::sender(
            2_150_858_771,
            "a:ActionNotSupported",
            None,
            "The WS-Management service does not support the action specified in the request. ",
        )
    }

    pub(crate) fn header_missing(name: &str) -> Self {
        Self::sender(
            2_150_858_769,
            "a:MessageInformationHeaderRequired",
            None,
            format!(
                "The WS-Management service cannot process the request because a required header is missing: {name}. "
            ),
        )
    }

    pub(crate) fn header_invalid(name: &str) -> Self {
        Self::sender(
            2_150_858_767,
            "a:InvalidMessageInformationHeader",
            None,
            format!("The WS-Management service cannot process the request because the header {name} is invalid. "),
        )
    }

    pub(crate) fn not_understood(name: &str) -> Self {
        Self {
            code: 2_150_858_768,
            role: Role::MustUnderstand,
            subcode: "",
            detail: None,
            reason: None,
            message: format!(
                "The WS-Management service cannot process a SOAP header in the request that is marked as mustUnderstand by the client: {name}. "
            ),
            provider: None,
            style: None,
        }
    }

    pub(crate) fn locale_must_be_a_hint() -> Self {
        Self::sender(
            2_150_858_887,
            "w:UnsupportedFeature",
            Some("Locale"),
            "The WS-Management service cannot guarantee that all data is returned in the requested locale as some data sources \
             may not be able to comply. Resend the remote request with locale as a hint. ",
        )
    }

    pub(crate) fn soap_version_mismatch() -> Self {
        Self::sender(
            2_150_858_765,
            "w:SchemaValidationError",
            None,
            "The WS-Management service does not support the SOAP version specified in the request. ",
        )
    }

    pub(crate) fn invalid_body() -> Self {
        Self::sender(
            2_150_858_791,
            "w:SchemaValidationError",
            None,
            "The WS-Management service cannot process the request because the request packet does not have a valid SOAP body. ",
        )
    }

    pub(crate) fn invalid_xml() -> Self {
        Self::sender(
            2_150_858_819,
            "w:SchemaValidationError",
            None,
            "The WS-Management service cannot process the request because the XML is invalid. ",
        )
    }

    pub(crate) fn schema() -> Self {
        Self::sender(
            2_150_858_817,
            "w:SchemaValidationError",
            None,
            "The SOAP XML in the message does not match the corresponding XML schema definition. Change the XML and retry. ",
        )
    }

    pub(crate) fn wrong_namespace() -> Self {
        Self::sender(
            2_150_858_840,
            "w:SchemaValidationError",
            Some("InvalidNamespace"),
            "The WS-Management service cannot identify the format of the object passed to a Put or Create method. The XML \
             namespace for the input XML is invalid. Change the XML namespace for the input XML in the request. ",
        )
    }

    pub(crate) fn envelope_size_too_small() -> Self {
        Self::sender(
            2_150_858_805,
            "w:EncodingLimit",
            Some("MinimumEnvelopeLimit"),
            "The WS-Management service cannot process the request because the encoding of the request exceeds an internal \
             encoding limit. Reconfigure the client to send messages which fit the encoding limits of the service. ",
        )
    }

    pub(crate) fn request_too_large() -> Self {
        Self::sender(
            2_150_858_790,
            "w:EncodingLimit",
            Some("ServiceEnvelopeLimit"),
            "The WS-Management service cannot process the request because it is larger than the maximum size allowed. ",
        )
    }

    pub(crate) fn invalid_timeout() -> Self {
        Self::sender(
            2_150_858_881,
            "w:SchemaValidationError",
            Some("OperationTimeout"),
            "The WS-Management service cannot process the request because the timeout header in the request is invalid. ",
        )
    }

    pub(crate) fn unsupported_timeout() -> Self {
        Self::sender(
            2_150_858_764,
            "w:UnsupportedFeature",
            Some("OperationTimeout"),
            "The WS-Management service does not support the specified timeout. The value specified is smaller than the minimum \
             allowed value for this setting. Change the timeout value and try the request again. ",
        )
    }

    pub(crate) fn pipe_closed() -> Self {
        Self {
            provider: Some("Shell cmd plugin"),
            ..Self::receiver(232, "w:InternalError", "The pipe is being closed. ")
        }
    }

    pub(crate) fn invalid_option(mandatory: bool) -> Self {
        let (code, message) = if mandatory {
            (
                2_150_858_833,
                "The WS-Management provider does not support the specified option set because mustComply for one of the \
                 options is set to true. Change mustComply for one of the options to false. ",
            )
        } else {
            (
                2_150_858_835,
                "The WS-Management service cannot process the request because one or more of the options has an invalid value. ",
            )
        };
        Self::sender(code, "w:InvalidOptions", None, message)
    }

    pub(crate) fn invalid_parameter() -> Self {
        Self::sender(
            2_150_858_810,
            "w:InvalidParameter",
            None,
            "The WS-Management service cannot process the request because a parameter for the operation is not valid. ",
        )
    }

    pub(crate) fn invalid_enumeration() -> Self {
        Self::receiver(
            2_150_858_779,
            "n:InvalidEnumerationContext",
            "The WS-Management service cannot process the request because the enumeration context is not valid. ",
        )
    }

    pub(crate) fn already_exists() -> Self {
        Self::sender(
            2_150_858_803,
            "w:AlreadyExists",
            None,
            "The WS-Management service cannot create the resource because it already exists. ",
        )
    }

    pub(crate) fn too_many_shells(limit: usize) -> Self {
        Self::quota(
            2_150_859_173,
            format!(
                "The WS-Management service cannot process the request. This user is allowed a maximum number of {limit} concurrent \
                 shells, which has been exceeded. Close existing shells or raise the quota for this user. "
            ),
        )
    }

    pub(crate) fn too_many_operations(limit: usize) -> Self {
        Self::quota(
            2_150_859_174,
            format!(
                "The WS-Management service cannot process the request. This user is allowed a maximum number of {limit} concurrent \
                 operations, which has been exceeded. Close existing operations for this user, or raise the quota for this user. "
            ),
        )
    }

    pub(crate) fn too_many_users() -> Self {
        Self::quota(
            2_150_859_179,
            "The WS-Management service cannot process the request. The maximum number of users executing shell operations has been \
             exceeded. Retry after sometime or raise the quota for concurrent shell users. "
                .to_owned(),
        )
    }

    /// No source tells which code a host gives here; this is the one for quotas that have none of their own.
    pub(crate) fn too_many_processes() -> Self {
        Self::quota(
            2_150_858_815,
            "The WS-Management service cannot process the request. The maximum number of processes of this shell has been exceeded. "
                .to_owned(),
        )
    }

    /// The fault with this code, as the host would give it where it knows it.
    pub(crate) fn ordered(code: u32, style: Option<Style>) -> Self {
        let fault = match code {
            5 => Self::access_denied(),
            170 => Self::busy(),
            232 => Self::pipe_closed(),
            995 => Self::aborted(),
            2_150_858_793 => Self::timed_out(),
            2_150_858_843 => Self::shell_not_found("00000000-0000-0000-0000-000000000000"),
            2_150_859_177 => Self::other_owner(),
            2_150_858_815 => Self::too_many_processes(),
            2_150_859_173 => Self::too_many_shells(30),
            2_150_859_174 => Self::too_many_operations(1500),
            2_150_859_179 => Self::too_many_users(),
            2_150_859_175 | 2_150_859_176 | 2_150_859_236..=2_150_859_242 => Self::quota(
                code,
                "The WS-Management service cannot process the request. A quota is exceeded. ".to_owned(),
            ),
            _ => Self::receiver(code, "w:InternalError", format!("The request failed with error {code}. ")),
        };
        Self { style, ..fault }
    }

    fn quota(code: u32, message: String) -> Self {
        Self::receiver(code, "w:QuotaLimit", message)
    }

    pub(crate) fn access_denied() -> Self {
        Self::sender(5, "w:AccessDenied", None, "Access is denied. ")
    }

    pub(crate) fn other_owner() -> Self {
        Self::sender(
            2_150_859_177,
            "w:AccessDenied",
            None,
            "The WS-Management service cannot process the request. The authorization token of the user is not the one that created the shell. ",
        )
    }

    pub(crate) fn busy() -> Self {
        Self {
            provider: Some("Shell cmd plugin"),
            ..Self::receiver(170, "w:InternalError", "The requested resource is in use. ")
        }
    }

    pub(crate) fn aborted() -> Self {
        Self {
            provider: Some("Shell cmd plugin"),
            ..Self::receiver(
                995,
                "w:InternalError",
                "The I/O operation has been aborted because of either a thread exit or an application request. ",
            )
        }
    }

    /// The action of the envelope.
    pub(crate) fn action(&self) -> &'static str {
        if self.subcode.starts_with("a:") { ADDRESSING } else { MANAGEMENT }
    }

    /// The `s:Fault` element. `style` is the host's way of writing faults.
    pub(crate) fn body(&self, machine: &str, style: Style) -> String {
        let style = self.style.unwrap_or(style);
        let role = match self.role {
            Role::Sender => "s:Sender",
            Role::Receiver => "s:Receiver",
            Role::MustUnderstand => "s:MustUnderstand",
        };
        let subcode = match (self.subcode, style.form) {
            ("", _) => String::new(),
            // Seen with quotas in this form.
            ("w:QuotaLimit", Form::WmiError) => subcode("w:InternalError"),
            (name, _) => subcode(name),
        };
        let code = if style.signed { self.code.cast_signed().to_string() } else { self.code.to_string() };
        let text = escape(&self.message);
        let reason = self.reason.map_or_else(|| text.clone(), escape);
        let detail = match style.form {
            Form::WsmanFault => self.wsman_fault(&code, &text, &escape(machine)),
            Form::WmiError => wmi_error(&code, self.code, &text),
        };
        format!(
            "<s:Fault><s:Code><s:Value>{role}</s:Value>{subcode}</s:Code><s:Reason><s:Text xml:lang=\"en-US\">{reason}</s:Text></s:Reason>\
             <s:Detail>{detail}</s:Detail></s:Fault>"
        )
    }

    fn wsman_fault(&self, code: &str, text: &str, machine: &str) -> String {
        let uri = self
            .detail
            .map(|name| {
                format!("<w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/{name}</w:FaultDetail>")
            })
            .unwrap_or_default();
        // The plug-in's own fault is nested as the service reports it: with its path below System32.
        let message = match self.provider {
            None => text.to_owned(),
            Some(provider) => format!(
                "<f:ProviderFault provider=\"{provider}\" path=\"%systemroot%\\system32\\winrscmd.dll\">\
                 <f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"{code}\" Machine=\"{machine}\">\
                 <f:Message>{text}</f:Message></f:WSManFault></f:ProviderFault>"
            ),
        };
        format!(
            "{uri}<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"{code}\" \
             Machine=\"{machine}\"><f:Message>{message}</f:Message></f:WSManFault>"
        )
    }
}

fn subcode(name: &str) -> String {
    format!("<s:Subcode><s:Value>{name}</s:Value></s:Subcode>")
}

/// The error object of WMI, with the members that clients look at and their neighbours.
fn wmi_error(code: &str, number: u32, text: &str) -> String {
    format!(
        "<p:MSFT_WmiError b:IsCIM_Error=\"true\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\" \
         xmlns:p=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError\" \
         xmlns:cim=\"http://schemas.dmtf.org/wbem/wscim/1/common\" xsi:type=\"p:MSFT_WmiError_Type\">\
         <p:CIMStatusCode xsi:type=\"cim:cimUnsignedInt\">27</p:CIMStatusCode>\
         <p:CIMStatusCodeDescription xsi:type=\"cim:cimString\" xsi:nil=\"true\"/>\
         <p:Message xsi:type=\"cim:cimString\">{text}</p:Message>\
         <p:MessageID xsi:type=\"cim:cimString\">HRESULT 0x{number:08x}</p:MessageID>\
         <p:error_Category xsi:type=\"cim:cimUnsignedInt\">30</p:error_Category>\
         <p:error_Code xsi:type=\"cim:cimUnsignedInt\">{code}</p:error_Code>\
         <p:error_Type xsi:type=\"cim:cimString\">HRESULT</p:error_Type>\
         <p:error_WindowsErrorMessage xsi:type=\"cim:cimString\">{text}</p:error_WindowsErrorMessage></p:MSFT_WmiError>"
    )
}
