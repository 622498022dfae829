//! Create, Get and Delete: the life of a shell.
//!
//! Called by the host with requests whose header is in order. What is against the protocol is refused and noted.

use std::collections::{BTreeSet, HashMap};

use super::shell::Shell;
use super::{Caller, Host, IDLE_TIMEOUT, SHELL_CMD, streams};
use crate::envelope::{Request, duration, guid};
use crate::fault::Fault;
use crate::programs::CodePage;
use crate::soap::{escape, namespace};

impl Host {
    pub(super) fn create(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        let code_page = self.create_options(request)?;
        let now = self.clock.now();
        let mut shell = Shell {
            id: guid(),
            name: request.body.attribute("Name").map(str::to_owned),
            owner: caller.user.clone(),
            client: caller.client.clone(),
            variables: Vec::new(),
            directory: None,
            idle_timeout: IDLE_TIMEOUT,
            input_streams: String::new(),
            output_streams: String::new(),
            code_page,
            created: now,
            active: now,
            commands: HashMap::new(),
            operations: 0,
        };
        if let Some(id) = request.body.attribute("ShellId") {
            shell.id = self.id(request, id)?;
        }
        for element in &request.body.children {
            let text = element.text.trim();
            if element.namespace != namespace::SHELL {
                return Err(self.against(request, Fault::wrong_namespace(), &element.name));
            }
            match element.name.as_str() {
                "Environment" => {
                    for variable in &element.children {
                        let name = variable.attribute("Name").filter(|_| variable.is(namespace::SHELL, "Variable"));
                        let name = name.ok_or_else(|| self.against(request, Fault::schema(), "Environment"))?;
                        shell.variables.push((name.to_owned(), variable.text.clone()));
                    }
                }
                "WorkingDirectory" => shell.directory = Some(text.to_owned()),
                "Lifetime" => {
                    duration(text).ok_or_else(|| self.against(request, Fault::schema(), "Lifetime"))?;
                }
                "IdleTimeOut" => {
                    shell.idle_timeout =
                        duration(text).ok_or_else(|| self.against(request, Fault::schema(), "IdleTimeOut"))?;
                    if shell.idle_timeout < self.options.min_idle_timeout {
                        return Err(self.against(
                            request,
                            Fault::unsupported_timeout(),
                            "IdleTimeOut below the minimum",
                        ));
                    }
                }
                "InputStreams" => shell.input_streams = text.to_owned(),
                "OutputStreams" => shell.output_streams = text.to_owned(),
                other => return Err(self.against(request, Fault::schema(), &format!("unknown element {other}"))),
            }
        }
        if !shell.input_streams.split_whitespace().all(|name| name == "stdin")
            || streams(&shell.output_streams).is_none()
        {
            return Err(self.against(request, Fault::invalid_parameter(), "unknown streams"));
        }
        let quotas = self.conditions.quotas();
        let mut state = self.lock();
        let own = state.shells.values().filter(|other| other.owner == caller.user).count();
        if own >= quotas.max_shells_per_user {
            return Err(Fault::too_many_shells(quotas.max_shells_per_user));
        }
        let users: BTreeSet<_> = state.shells.values().map(|other| &other.owner).collect();
        if own == 0 && users.len() >= quotas.max_concurrent_users {
            return Err(Fault::too_many_users());
        }
        if state.shells.contains_key(&shell.id) {
            drop(state);
            return Err(self.against(request, Fault::already_exists(), "ShellId in use"));
        }
        let body = format!(
            "<x:ResourceCreated><a:Address>{}</a:Address><a:ReferenceParameters><w:ResourceURI>{SHELL_CMD}</w:ResourceURI>\
             <w:SelectorSet><w:Selector Name=\"ShellId\">{}</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>{}",
            escape(&request.to),
            shell.id,
            shell.element(None, now),
        );
        state.shells.insert(shell.id.clone(), shell);
        drop(state);
        self.recorder.count(|statistics| {
            statistics.shells.opened += 1;
            statistics.shells.open += 1;
        });
        Ok(body)
    }

    pub(super) fn create_options(&self, request: &Request) -> Result<CodePage, Fault> {
        let mut code_page = CodePage::Oem437;
        for option in &request.options {
            match option.name.to_uppercase().as_str() {
                "WINRS_NOPROFILE" => self.boolean_option(request, &option.value)?,
                "WINRS_CODEPAGE" => {
                    code_page = match option.value.parse::<u32>() {
                        Ok(65001) => CodePage::Utf8,
                        Ok(_) => CodePage::Oem437,
                        Err(_) => return Err(self.against(request, Fault::invalid_option(false), "WINRS_CODEPAGE")),
                    }
                }
                _ => self.unknown_option(request, &option.name, option.must_comply)?,
            }
        }
        Ok(code_page)
    }

    pub(super) fn delete(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let shell_id = self.shell_id(request)?;
        let mut state = self.lock();
        state.shell(&shell_id, caller, self.clock.now())?;
        let shell = state.shells.remove(&shell_id);
        drop(state);
        // Its processes end here.
        drop(shell);
        self.recorder.count(|statistics| {
            statistics.shells.deleted += 1;
            statistics.shells.open = statistics.shells.open.saturating_sub(1);
        });
        Ok(String::new())
    }

    pub(super) fn get(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let shell_id = self.shell_id(request)?;
        let now = self.clock.now();
        Ok(self.lock().shell(&shell_id, caller, now)?.element(Some("Connected"), now))
    }
}
