//! `lictor-agent check-config`: every setting in effect, where it came from, what of a delegate's environment does nothing and
//! why, or every mistake at once.
//!
//! Opens no port, connects to nobody, runs no script and shows no secret. Called by `cli`.

use std::fmt::Write as _;
use std::path::Path;

use clap::ValueEnum;
use lictor_settings::overview;
use serde::Serialize;

use crate::authorities;
use crate::config::{self, Ignored, Loaded, Setting};
use crate::failure;
use crate::policy;

/// How it is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A table, for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) valid: bool,
    settings: Vec<Setting>,
    ignored: Vec<Ignored>,
    remarks: Vec<String>,
    mistakes: Vec<String>,
}

/// Reads and checks everything that the settings name.
pub(crate) fn check(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Checked {
    match config::load(file, environment) {
        Err(config::Mistakes(mistakes)) => {
            Checked { valid: false, settings: Vec::new(), ignored: Vec::new(), remarks: Vec::new(), mistakes }
        }
        Ok(loaded) => {
            let mistakes = beyond(&loaded);
            Checked {
                valid: mistakes.is_empty(),
                settings: loaded.overview.settings,
                ignored: loaded.told.ignored,
                remarks: loaded.told.remarks,
                mistakes,
            }
        }
    }
}

/// Mistakes in the files that the settings name. Waits for the disk.
pub(crate) fn beyond(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut mistakes = Vec::new();
    if let Some(Err(error)) = config.policy_file.as_deref().map(policy::load) {
        mistakes.push(failure::chain(&error));
    }
    if let Err(error) = config.kerberos.check() {
        mistakes.push(failure::chain(&error));
    }
    if let Err(error) = authorities::read(&config.ca_files) {
        mistakes.push(failure::chain(&error));
    }
    mistakes
}

impl Checked {
    /// The table, what is ignored, and remarks.
    pub(crate) fn text(&self) -> String {
        let mut out = overview::table(&self.settings);
        if !self.ignored.is_empty() {
            let _ = writeln!(out, "\nThese variables do nothing here:");
            for Ignored { name, reason } in &self.ignored {
                let _ = writeln!(out, "  {name}: {reason}");
            }
        }
        if !self.remarks.is_empty() {
            let _ = writeln!(out, "\nTo know:");
            for remark in &self.remarks {
                let _ = writeln!(out, "  {}", overview::one_line(remark));
            }
        }
        if self.valid {
            let _ = writeln!(out, "\nThe configuration is valid");
        }
        out
    }

    /// The same with where a bootstrap script comes from, or what is wrong with it.
    pub(crate) fn with_script(mut self, origin: Result<Option<String>, Vec<String>>) -> Self {
        match origin {
            Ok(Some(source)) if self.valid => {
                self.settings.push(Setting::secret("bootstrap script", &source));
                self.settings.sort_by(|one, other| one.key.cmp(&other.key));
            }
            Ok(_) => {}
            Err(more) => {
                let new = more.into_iter().filter(|mistake| !self.mistakes.contains(mistake)).collect::<Vec<_>>();
                self.mistakes.extend(new);
                self.valid = self.mistakes.is_empty();
            }
        }
        self
    }

    /// The mistakes, as `run` prints them.
    pub(crate) fn mistakes(&self) -> Option<config::Mistakes> {
        (!self.valid).then(|| config::Mistakes(self.mistakes.clone()))
    }
}
