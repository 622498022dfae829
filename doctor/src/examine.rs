//! The examination as a whole: what is looked at, and in which order.

use lictor_kerberos::config::Source;
use lictor_kerberos::{Identity, Kerberos};
use lictor_winrm::Target;
use lictor_winrm::pool::{ConnectionInfo, Pool};
use tokio::time::Instant;

use crate::step::{Outcome, Step, Steps};
use crate::{host, kerberos};

/// What is examined.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The host and as whom to talk to it. Nothing: what this machine itself needs is looked at alone.
    pub target: Option<Target>,
    /// Kerberos, when it comes into it.
    pub kerberos: Option<KerberosSubject>,
    /// Whether the usual ports of WinRM are connected to beside the target's: what a policy may forbid.
    pub usual_ports: bool,
}

/// Kerberos as an examination needs it.
#[derive(Debug, Clone)]
pub struct KerberosSubject {
    /// Where its configuration is.
    pub source: Source,
    /// Who gets tickets: the same as for the target's credential, so that a login is made once. Nothing: the configuration
    /// cannot be used.
    pub manager: Option<Kerberos>,
    /// As whom to log in. Nothing: no login is tried.
    pub identity: Option<Identity>,
}

/// What an examination found.
#[derive(Debug)]
pub struct Report {
    /// Every step, in order.
    pub steps: Vec<Step>,
    /// The connection, when it got that far.
    pub connection: Option<ConnectionInfo>,
}

impl Report {
    /// The first step that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == Outcome::Failed)
    }
}

/// Examines `subject` until `deadline`, and tells of each step when it was taken. What does not depend on a failed step is
/// still looked at.
pub async fn examine(subject: &Subject, deadline: Instant, mut on_step: impl FnMut(&Step) + Send) -> Report {
    take(subject, None, deadline, Steps::new(&mut on_step)).await
}

/// The same beside the sessions of `pool`: the shell that is opened bears its owner's name, so that it is found and deleted like the rest
/// should this process be killed.
pub async fn examine_in(
    pool: &Pool,
    subject: &Subject,
    deadline: Instant,
    mut on_step: impl FnMut(&Step) + Send,
) -> Report {
    take(subject, Some(pool), deadline, Steps::new(&mut on_step)).await
}

async fn take(subject: &Subject, pool: Option<&Pool>, deadline: Instant, mut steps: Steps<'_>) -> Report {
    let refused = kerberos::look(subject, true, deadline, &mut steps).await;
    let kept_back =
        refused.then_some("a KDC refused the credential, or may have yet to judge it; it is not tried again");
    let connection = host::look(subject, pool, kept_back, deadline, &mut steps).await;
    Report { steps: steps.finish(), connection }
}

/// The same without logging in: neither to a KDC nor to the host. What proves the user in `subject` is not used; the KDC is asked
/// what it says of the user before anything is proved.
pub async fn examine_unproved(subject: &Subject, deadline: Instant, mut on_step: impl FnMut(&Step) + Send) -> Report {
    let mut steps = Steps::new(&mut on_step);
    kerberos::look(subject, false, deadline, &mut steps).await;
    let connection = host::look(subject, None, Some("nobody logs in"), deadline, &mut steps).await;
    Report { steps: steps.finish(), connection }
}
