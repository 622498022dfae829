//! Kerberos as the commands use it: where its settings are, what is traced, and its failures in this program's words.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_kerberos::ErrorKind;
use lictor_kerberos::config::{Configuration, Source, Watch};
use lictor_kerberos::keytab::Keytab;
use lictor_kerberos::trace::Trace;

use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, chain, clean};

/// The settings that are in force.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) watch: Arc<Watch>,
    pub(crate) trace: Trace,
}

impl Settings {
    /// Reads the krb5.conf that was given, else the one of KRB5_CONFIG, else `/etc/krb5.conf`.
    pub(crate) async fn load(krb5_conf: Option<&Path>, trace: bool) -> Result<Self, Failure> {
        let source = source(krb5_conf);
        let started = tokio::task::spawn_blocking(move || Watch::start(source, None)).await;
        let watch = started.map_err(|error| Failure::local(error.to_string()))?.map_err(|error| {
            Failure::own(
                Exit::USAGE,
                "kerberos",
                "kerberos.config",
                chain(&error),
                "A krb5.conf that is wrong in one place is not used in others: what it leaves out might be what matters."
                    .to_owned(),
                "Correct the lines that the message names, or give another file with --krb5-conf or KRB5_CONFIG.".to_owned(),
            )
        })?;
        let trace =
            if trace { Trace::to(|line| _ = writeln!(io::stderr().lock(), "{}", clean(line))) } else { Trace::off() };
        Ok(Self { watch: Arc::new(watch), trace })
    }

    /// What they say now.
    pub(crate) fn current(&self) -> Arc<Configuration> {
        self.watch.current()
    }

    /// Says what in krb5.conf probably means something else than its author thinks.
    pub(crate) fn warn(&self) {
        for warning in self.current().warnings() {
            console::note(&format!("warning: {}", clean(&warning.to_string())));
        }
    }
}

/// The krb5.conf that was given, else the one of KRB5_CONFIG, else `/etc/krb5.conf`.
pub(crate) fn source(krb5_conf: Option<&Path>) -> Source {
    krb5_conf.map_or(Source::System, |path| Source::File(path.to_owned()))
}

/// A failure of Kerberos as one of this program.
pub(crate) fn failed(error: &lictor_kerberos::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Unavailable => Exit::CONNECT,
        ErrorKind::Rejected | ErrorKind::ServiceUnknown | ErrorKind::Other => Exit::AUTHENTICATE,
    };
    Failure {
        legacy_text: error.legacy_text().map(Box::from),
        ..Failure::own(
            exit,
            "authenticate",
            error.code(),
            error.to_string(),
            error.cause().to_owned(),
            error.remedy().to_owned(),
        )
    }
}

/// What the environment names where no flag does.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) keytab: Option<PathBuf>,
    pub(crate) ccache: Option<String>,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let ccache = std::env::var("KRB5CCNAME").ok().filter(|name| !name.is_empty());
        Self { keytab: crate::keytab::from_environment(), ccache }
    }
}

/// The one principal of a keytab that can be meant by somebody who names none: the only one, or the only one that is a user.
pub(crate) fn only_principal(path: &Path, keytab: &Keytab) -> Result<String, Failure> {
    let all = keytab.principals();
    let services: HashSet<&str> = keytab
        .entries()
        .iter()
        .filter(|entry| entry.components.len() > 1)
        .map(|entry| entry.principal.as_str())
        .collect();
    let users: Vec<&str> = all.iter().copied().filter(|principal| !services.contains(principal)).collect();
    match (all.as_slice(), users.as_slice()) {
        ([only], _) | (_, [only]) => Ok((*only).to_owned()),
        ([], _) => Err(Failure::usage(format!("the keytab {} holds no key", path.display()), "Give another keytab.")),
        (several, _) => {
            let mut names = several.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            if several.len() > 10 {
                names.push_str(", ...");
            }
            Err(Failure::usage(
                format!("the keytab {} holds keys of several principals: {names}", path.display()),
                "Say with --user which one to log in as.",
            ))
        }
    }
}
