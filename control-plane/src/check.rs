//! `lictor-control-plane check-config`: every setting in effect and where it came from, or every mistake at once.
//!
//! Opens nothing and shows no secret. Called by `cli`.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use lictor_settings::{Setting, overview};
use serde::Serialize;

use crate::config::{self, Mistakes};

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
    valid: bool,
    settings: Vec<Setting>,
    mistakes: Vec<String>,
}

/// Reads the settings.
pub(crate) fn check(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Checked {
    match config::load(file, environment) {
        Ok(loaded) => Checked { valid: true, settings: loaded.overview.settings, mistakes: Vec::new() },
        Err(Mistakes(mistakes)) => Checked { valid: false, settings: Vec::new(), mistakes },
    }
}

impl Checked {
    /// The settings; in JSON the mistakes as well.
    pub(crate) fn print(&self, form: Form) -> String {
        match form {
            Form::Text if self.valid => {
                format!("{}\nThe configuration is valid\n", overview::table(&self.settings))
            }
            Form::Text => String::new(),
            // It holds nothing that JSON cannot say.
            Form::Json => serde_json::to_string_pretty(self).map(|text| format!("{text}\n")).unwrap_or_default(),
        }
    }

    /// The mistakes, as `run` prints them.
    pub(crate) fn mistakes(&self) -> Option<Mistakes> {
        (!self.valid).then(|| Mistakes(self.mistakes.clone()))
    }
}
