//! The faults that a Windows host answers with: codes, subcodes, texts and the envelope they travel in.
//!
//! The texts and the element tree are those of the recordings where there is one; codes and subcodes are those of `wsmerror.h`.

use crate::soap::escape;

/// A fault on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The `Code` attribute of `WSManFault`: an `ERROR_WSMAN_*` or a Win32 code.
    pub(crate) code: u32,
    role: Role,
    subcode: &'static str,
    detail: Option<&'static str>,
    message: String,
    /// Provider and path of the `ProviderFault`, for faults that come from the shell plug-in.
    provider: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
    MustUnderstand,
}

const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault";
const MANAGEMENT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault";

impl Fault {
    fn sender(code: u32, subcode: &'static str, detail: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { code, role: Role::Sender, subcode, detail, message: message.into(), provider: None }
    }

    fn receiver(code: u32, subcode: &'static str, message: impl Into<String>) -> Self {
        Self { code, role: Role::Receiver, subcode, detail: None, message: message.into(), provider: None }
    }

    pub(crate) fn timed_out() -> Self {
        Self::receiver(
            2_150_858_793,
            "w:TimedOut",
            "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.  ",
        )
    }

    pub(crate) fn shell_not_found() -> Self {
        Self::sender(
            2_150_858_843,
            "w:InvalidSelectors",
            Some("UnexpectedSelectors"),
            "The request for the Windows Remote Shell with ShellId was not found on the server. Use a different shell identifier. ",
        )
    }

    pub(crate) fn command_not_found() -> Self {
        Self::sender(
            2_150_858_843,
            "w:InvalidSelectors",
            Some("UnexpectedSelectors"),
            "The Windows Remote Shell received a request to perform an operation on a command identifier that does not exist. \
             Either the command has completed execution or the client specified an invalid command identifier. ",
        )
    }

    pub(crate) fn unexpected_selectors() -> Self {
        Self::sender(
            2_150_858_843,
            "w:InvalidSelectors",
            Some("UnexpectedSelectors"),
            "The WS-Management service cannot process the request because the request contained invalid selectors for the resource. ",
        )
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
            message: format!(
                "The WS-Management service cannot process a SOAP header in the request that is marked as mustUnderstand by the client: {name}. "
            ),
            provider: None,
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
                "The WS-Management service cannot process the request. The maximum number of concurrent operations for this user \
                 has been exceeded. Close existing operations for this user, or raise the quota for this user. The current quota is {limit}. "
            ),
        )
    }

    fn quota(code: u32, message: String) -> Self {
        Self { provider: Some("Shell cmd plugin"), ..Self::receiver(code, "w:QuotaLimit", message) }
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

    /// The `s:Fault` element.
    pub(crate) fn body(&self, machine: &str) -> String {
        let role = match self.role {
            Role::Sender => "s:Sender",
            Role::Receiver => "s:Receiver",
            Role::MustUnderstand => "s:MustUnderstand",
        };
        let subcode = match self.subcode {
            "" => String::new(),
            subcode => format!("<s:Subcode><s:Value>{subcode}</s:Value></s:Subcode>"),
        };
        let detail = self
            .detail
            .map(|name| {
                format!("<w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/{name}</w:FaultDetail>")
            })
            .unwrap_or_default();
        let (text, machine, code) = (escape(&self.message), escape(machine), self.code);
        // The plug-in's own fault is nested as the service reports it: with its path below System32.
        let message = match self.provider {
            None => text.clone(),
            Some(provider) => format!(
                "<f:ProviderFault provider=\"{provider}\" path=\"%systemroot%\\system32\\winrscmd.dll\">\
                 <f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"{code}\" Machine=\"{machine}\">\
                 <f:Message>{text}</f:Message></f:WSManFault></f:ProviderFault>"
            ),
        };
        format!(
            "<s:Fault><s:Code><s:Value>{role}</s:Value>{subcode}</s:Code><s:Reason><s:Text xml:lang=\"en-US\">{text}</s:Text></s:Reason>\
             <s:Detail>{detail}<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"{code}\" \
             Machine=\"{machine}\"><f:Message>{message}</f:Message></f:WSManFault></s:Detail></s:Fault>"
        )
    }
}
