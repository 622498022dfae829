//! What every operation asks of its request: selectors, ids, options and the time that it may take.

use std::time::Duration;

use uuid::Uuid;

use super::Host;
use crate::envelope::Request;
use crate::fault::Fault;

impl Host {
    /// The one selector of a request on a shell.
    pub(super) fn shell_id(&self, request: &Request) -> Result<String, Fault> {
        match request.selectors.as_slice() {
            [(name, id)] if name.eq_ignore_ascii_case("ShellId") => Uuid::try_parse(id)
                .map(|_| id.to_uppercase())
                .map_err(|_| self.against(request, Fault::invalid_shell_id(), "the ShellId is not a GUID")),
            [] => Err(self.against(request, Fault::insufficient_selectors(), "no ShellId")),
            _ => Err(self.against(request, Fault::unexpected_selectors(), "unknown selectors")),
        }
    }

    pub(super) fn operation_timeout(&self, request: &Request) -> Duration {
        request.operation_timeout.min(self.options.max_operation_timeout)
    }

    pub(super) fn id(&self, request: &Request, id: &str) -> Result<String, Fault> {
        Uuid::try_parse(id)
            .map(|_| id.to_uppercase())
            .map_err(|_| self.against(request, Fault::invalid_parameter(), "an id that is no GUID"))
    }

    pub(super) fn no_options(&self, request: &Request) -> Result<(), Fault> {
        request.options.iter().try_for_each(|option| self.unknown_option(request, &option.name, option.must_comply))
    }

    pub(super) fn boolean_option(&self, request: &Request, value: &str) -> Result<(), Fault> {
        if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") || value == "0" || value == "1" {
            Ok(())
        } else {
            Err(self.against(request, Fault::invalid_option(false), "an option that is neither TRUE nor FALSE"))
        }
    }

    /// Windows ignores options it does not know unless it must comply.
    pub(super) fn unknown_option(&self, request: &Request, name: &str, must_comply: bool) -> Result<(), Fault> {
        let fault = self.against(request, Fault::invalid_option(true), &format!("unknown option {name}"));
        if must_comply { Err(fault) } else { Ok(()) }
    }

    /// Notes a violation and passes its fault on.
    pub(super) fn against(&self, request: &Request, fault: Fault, what: &str) -> Fault {
        self.recorder.violation(format!("{}: {what}", request.operation.name()));
        fault
    }
}
