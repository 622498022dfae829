//! Kerberos as the settings have it: configuration, KDCs, keytabs, caches. Nobody logs in, and what the settings declare is not
//! written for other programs: that is the running agent's file.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lictor_doctor::{Check, Finding, KerberosSubject, Subject, examine};
use lictor_kerberos::Kerberos as Manager;
use lictor_kerberos::ccache;
use lictor_kerberos::config::{ConfigError, Configuration, Source, Watch};
use lictor_kerberos::enquire;
use lictor_kerberos::kdc::Directory;
use lictor_kerberos::keytab::{Keytab, parse_principal};
use lictor_kerberos::trace::Trace;
use tokio::time::Instant;

use super::report::Book;
use super::{advice, deadline, on_disk, span};
use crate::config::Kerberos;
use crate::failure::chain;
use crate::kerberos::{default_cache, keytab_files};

/// What the examination of hosts can go on with.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) manager: Manager,
    pub(super) configuration: Arc<Configuration>,
    /// Keytabs that can be read.
    pub(super) keytabs: Vec<(PathBuf, Keytab)>,
    /// Caches that hold a ticket which is still good, and whose.
    pub(super) caches: Vec<(String, String)>,
}

/// Nothing when there is no configuration that can be used.
pub(super) async fn look(settings: &Kerberos, book: &mut Book) -> Option<Found> {
    let source = settings.source();
    let used = settings.is_given() || !settings.keytabs.is_empty() || !settings.caches.is_empty();
    if !used && source == Source::System && !system_has_one() {
        book.skipped("krb5_conf", "there is no krb5.conf and no realm in the settings: tasks cannot use Kerberos");
        return None;
    }
    let watch = on_disk({
        let source = source.clone();
        move || Watch::start(source, None)
    });
    let watch = match watch.await {
        Ok(Ok(watch)) => Some(Arc::new(watch)),
        Ok(Err(error)) => {
            told(&error, book);
            None
        }
        Err(why) => {
            book.unknown("krb5_conf", why);
            None
        }
    };
    let keytabs = keytabs(settings.keytabs.clone(), book).await;
    let caches = caches(settings, book).await;
    if let Some(watch) = &watch {
        let manager = Some(Manager::new(Arc::clone(watch)));
        let kerberos = KerberosSubject { source: source.clone(), manager, identity: None };
        let subject = Subject { target: None, kerberos: Some(kerberos), usual_ports: false };
        // A file that came with the system may know only realms that nobody here wants.
        let report = examine(&subject, deadline(), |step| if used { book.step(step) } else { book.doubt(step) }).await;
        let came_to_kdcs = report.steps.iter().any(|step| matches!(step.check, Check::KdcUdp | Check::KdcTcp));
        let configuration = watch.fresh().await;
        let mut realms: BTreeSet<String> = BTreeSet::new();
        if settings.is_given() {
            realms.extend(configuration.realms_with_kdcs().map(str::to_owned));
        }
        realms.extend(keytabs.iter().flat_map(|(_, keytab)| keytab.entries()).map(|entry| entry.realm.clone()));
        realms.extend(caches.iter().filter_map(|(_, held)| Some(held.rsplit_once('@')?.1.to_owned())));
        realms.retain(|realm| !came_to_kdcs || configuration.default_realm() != Some(realm));
        other_realms(watch, &realms, book).await;
    }
    let watch = watch?;
    let configuration = watch.fresh().await;
    Some(Found { source, manager: Manager::new(watch), configuration, keytabs, caches })
}

fn system_has_one() -> bool {
    let named = std::env::var_os("KRB5_CONFIG").filter(|named| !named.is_empty());
    named.is_some() || Path::new("/etc/krb5.conf").exists()
}

fn told(error: &ConfigError, book: &mut Book) {
    let mistakes = error.mistakes();
    if mistakes.is_empty() {
        book.failed("krb5_conf", "", advice::KERBEROS_CONFIGURATION.about(chain(error)));
    }
    for mistake in mistakes {
        book.failed("krb5_conf", "", advice::KERBEROS_CONFIGURATION.about(mistake.to_string()));
    }
}

/// The default realm was looked at in full. Of the others a KDC is asked about somebody whom it need not know.
async fn other_realms(watch: &Arc<Watch>, realms: &BTreeSet<String>, book: &mut Book) {
    let directory = Directory::new(Arc::clone(watch));
    for realm in realms.iter().take(MOST_REALMS) {
        let Ok(nobody) = parse_principal(NOBODY, Some(realm)) else { continue };
        let by = deadline().min(Instant::now() + PER_REALM);
        match enquire::of_realm(&directory, &nobody, &Trace::off(), by).await {
            Ok(reply) => {
                let clock = reply.ahead.map(|ahead| format!("; its clock is {ahead:+} s off ours")).unwrap_or_default();
                book.passed("kdc", format!("a KDC of {realm} answers{clock}"));
            }
            Err(failure) => book.failed("kdc", "", Finding::from(&enquire::unanswered(&failure, &nobody))),
        }
    }
}

/// The files that can be read.
async fn keytabs(listed: Vec<PathBuf>, book: &mut Book) -> Vec<(PathBuf, Keytab)> {
    let read = on_disk(move || {
        let files = keytab_files(&listed);
        files
            .into_iter()
            .map(|file| {
                let keytab = file
                    .and_then(|path| Keytab::read(&path).map(|keytab| (path, keytab)).map_err(|error| chain(&error)));
                let mode =
                    |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
                keytab.map(|(path, keytab)| (mode(&path), path, keytab))
            })
            .collect::<Vec<_>>()
    });
    let mut usable = Vec::new();
    let read = read.await.unwrap_or_else(|why| {
        book.unknown("keytab", why);
        Vec::new()
    });
    for read in read {
        let (mode, path, keytab) = match read {
            Ok(read) => read,
            Err(why) => {
                book.failed("keytab", "", advice::KEYTAB.about(why));
                continue;
            }
        };
        let shown = format!("{}: {}", path.display(), keys(&keytab));
        if !keytab.entries().iter().any(lictor_kerberos::keytab::Entry::is_usable) {
            book.failed("keytab", "", advice::KEYTAB_OLD_KEYS.about(shown));
        } else if mode & 0o004 != 0 {
            let message = format!("it has mode {mode:04o}");
            book.warn("keytab", shown, advice::KEYTAB_OPEN.about(message));
        } else {
            book.passed("keytab", shown);
        }
        usable.push((path, keytab));
    }
    usable
}

/// Principals with their key version numbers.
fn keys(keytab: &Keytab) -> String {
    let principals = keytab.principals();
    if principals.is_empty() {
        return "it holds no key".to_owned();
    }
    let shown = principals.iter().take(MOST_SHOWN).map(|principal| {
        let versions: Vec<String> = keytab.kvnos(principal).iter().map(ToString::to_string).collect();
        format!("{principal} (kvno {})", versions.join(", "))
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if principals.len() > MOST_SHOWN {
        text.push_str(&format!(" and {} more", principals.len() - MOST_SHOWN));
    }
    text
}

/// Those that hold a ticket which is still good, and whose.
async fn caches(settings: &Kerberos, book: &mut Book) -> Vec<(String, String)> {
    let default = default_cache();
    let mut names = settings.caches.clone();
    // It need not be there: only tasks of the kinit mode `manual` want it.
    let listed = names.contains(&default);
    if !listed {
        names.push(default.clone());
    }
    let mut good = Vec::new();
    for name in names {
        let read = on_disk({
            let name = name.clone();
            move || ccache::contents(&name)
        });
        let contents = match read.await {
            Ok(Ok(contents)) => contents,
            Ok(Err(_)) if name == default && !listed => {
                book.skipped("cache", format!("the default one, {name}, is not there or cannot be read"));
                continue;
            }
            Ok(Err(error)) => {
                book.failed("cache", "", Finding::from(&error));
                continue;
            }
            Err(why) => {
                book.unknown("cache", format!("{name}: {why}"));
                continue;
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let shown = format!("{name}: {}, {} tickets", contents.principal, contents.tickets);
        match contents.granting {
            None => book.unknown("cache", format!("{shown}, none of them ticket-granting")),
            Some((ends, _)) if u64::from(ends) <= now => {
                let message = format!("{shown}; it ended {} ago", span(now - u64::from(ends)));
                book.warn("cache", "", advice::CACHE_ENDED.about(message));
            }
            Some((ends, renewable)) => {
                let left = |at: u32| span(u64::from(at).saturating_sub(now));
                let renewable = if u64::from(renewable) > now {
                    format!(", renewable for {}", left(renewable))
                } else {
                    String::new()
                };
                book.passed("cache", format!("{shown}; good for {}{renewable}", left(ends)));
                good.push((name, contents.principal));
            }
        }
    }
    good
}

/// Asked about where nobody logs in. That there is no such user is as good an answer as any.
const NOBODY: &str = "lictor-doctor";
const MOST_REALMS: usize = 50;
const PER_REALM: Duration = Duration::from_secs(15);
/// Principals of one keytab.
const MOST_SHOWN: usize = 20;
