//! Who to be: sessions for each of the four kinds of credentials, one request for each, renewed before they end.
//!
//! A session that AWS says has ended is dropped and made anew once. A refusal is remembered for a moment, so that a crowd of tasks
//! does not hammer STS.

mod machine;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as Keys;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

pub use self::machine::Environment;
use crate::access::{Access, Credentials};
use crate::arn::{RoleArn, is_role_session};
use crate::client::Clients;
use crate::error::classify::Refusal;
use crate::error::sentences::{self, Action};
use crate::error::{Error, Stage};

/// Somebody AWS knows, and clients that act as them.
pub(crate) struct Session {
    pub(crate) kms: aws_sdk_kms::Client,
    pub(crate) sts: aws_sdk_sts::Client,
    /// Where the credentials come from, in words.
    pub(crate) source: String,
    keys: Keys,
    made: SystemTime,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Session {
    /// Good for a while yet. Short sessions are not renewed all the time: a quarter of their life is enough.
    fn is_fresh(&self) -> bool {
        let Some(ends) = self.keys.expiry() else { return true };
        let life = ends.duration_since(self.made).unwrap_or_default();
        let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
        left > MARGIN.min(life / 4)
    }
}

/// All sessions of a program.
#[derive(Debug)]
pub(crate) struct Identities {
    clients: Clients,
    environment: Environment,
    session_name: String,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_access: HashMap<[u8; 32], Arc<Slot>>,
    uses: u64,
}

/// What is known of one identity.
#[derive(Default)]
struct Slot {
    /// Held while a session is made: the others wait for it.
    state: tokio::sync::Mutex<State>,
    token: Mutex<Option<(u64, Zeroizing<String>)>>,
    used: Mutex<u64>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    refused: Option<(Error, Instant)>,
}

impl Identities {
    pub(crate) fn new(clients: Clients, environment: Environment, session_name: &str) -> Self {
        Self { clients, environment, session_name: role_session_name(session_name), slots: Mutex::default() }
    }

    /// A session, made when there is none that is good for a while yet.
    pub(crate) async fn session(&self, access: &Access, deadline: Instant) -> Result<Arc<Session>, Error> {
        let slot = self.slot(access);
        let late = |_| sentences::deadline(Stage::Identity);
        let mut state = timeout_at(deadline, slot.state.lock()).await.map_err(late)?;
        if let Some(session) = state.session.as_ref().filter(|session| session.is_fresh()) {
            return Ok(Arc::clone(session));
        }
        if let Some((error, until)) = &state.refused
            && Instant::now() < *until
        {
            let living = state.session.as_ref().filter(|session| error.is_passing() && session.lives());
            return living.map(Arc::clone).ok_or_else(|| error.clone());
        }
        let made = timeout_at(deadline, self.make(access, &slot, deadline)).await.map_err(late).flatten();
        match made {
            Ok((keys, source)) => {
                let session = Arc::new(Session {
                    kms: self.clients.kms(access, keys.clone()),
                    sts: self.clients.sts(access, Some(keys.clone())),
                    source,
                    keys,
                    made: SystemTime::now(),
                });
                *state = State { session: Some(Arc::clone(&session)), refused: None };
                Ok(session)
            }
            Err(error) => {
                // Asking the machine is slow where it does not answer, and a crowd asks it one by one.
                let settled = error.is_denial() || matches!(error.code(), "kms.imds" | "kms.machine_credentials");
                state.refused = settled.then(|| (error.clone(), Instant::now() + PAUSE));
                // A session with some life left is better than none while STS, or what knows the machine, is out of reach.
                if error.is_passing()
                    && let Some(session) = state.session.as_ref().filter(|session| session.lives())
                {
                    return Ok(Arc::clone(session));
                }
                state.session = None;
                Err(error)
            }
        }
    }

    /// Drops a session that AWS takes no more. False when nothing else could come of asking again.
    pub(crate) async fn forget(&self, access: &Access, session: &Arc<Session>, deadline: Instant) -> bool {
        if matches!(access.credentials, Credentials::AccessKey { .. }) {
            return false;
        }
        // What a role was assumed with may have ended as well.
        if matches!(access.credentials, Credentials::AssumeRole { .. }) {
            let slot = self.slot(&access.machine());
            if let Ok(mut state) = timeout_at(deadline, slot.state.lock()).await {
                state.session = None;
            }
        }
        let slot = self.slot(access);
        let Ok(mut state) = timeout_at(deadline, slot.state.lock()).await else { return false };
        if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            state.session = None;
        }
        true
    }

    /// What a role is assumed with. Boxed, since it is how a session comes to ask for another.
    pub(crate) fn base<'a>(
        &'a self,
        access: &Access,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Session>, Error>> + Send + 'a>> {
        let machine = access.machine();
        Box::pin(async move { self.session(&machine, deadline).await })
    }

    async fn make(&self, access: &Access, slot: &Slot, deadline: Instant) -> Result<(Keys, String), Error> {
        match &access.credentials {
            Credentials::AccessKey { id, secret } => {
                let keys = Keys::new(id.as_str(), secret.as_str(), None, None, PROVIDER);
                Ok((keys, "the access key".to_owned()))
            }
            Credentials::Machine => machine::find(&self.clients, &self.environment, access, &self.session_name).await,
            Credentials::AssumeRole { role, external_id, duration } => {
                self.assume(access, role, external_id.as_deref(), *duration, deadline).await
            }
            Credentials::WebIdentity { role, token, duration } => {
                let newest = slot.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let token = newest.map_or_else(|| token.clone(), |(_, token)| token);
                let sts = self.clients.sts(access, None);
                let keys =
                    with_web_identity(&sts, access, role.as_str(), &self.session_name, &token, Some(*duration)).await?;
                Ok((keys, format!("the token for {role}")))
            }
        }
    }

    async fn assume(
        &self,
        access: &Access,
        role: &RoleArn,
        external_id: Option<&str>,
        duration: Duration,
        deadline: Instant,
    ) -> Result<(Keys, String), Error> {
        let mut again = true;
        loop {
            let base = self.base(access, deadline).await?;
            // It makes a better sentence of a refusal and no more: AssumeRole must not go without its time for that.
            if duration > CHAINED
                && let Ok(Ok(identity)) =
                    timeout_at(deadline.min(Instant::now() + ASIDE), base.sts.get_caller_identity().send()).await
                && let Some(arn) = identity.arn().filter(|arn| is_role_session(arn))
            {
                return Err(sentences::role_chaining(&access.way(), arn));
            }
            let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
            let answer = base
                .sts
                .assume_role()
                .role_arn(role.as_str())
                .role_session_name(&self.session_name)
                .duration_seconds(seconds)
                .set_external_id(external_id.map(str::to_owned))
                .send()
                .await;
            match answer {
                Ok(output) => {
                    let keys = session_keys(output.credentials(), Action::AssumeRole)?;
                    return Ok((keys, format!("the role {role}, assumed with {}", base.source)));
                }
                Err(error) => {
                    let refusal = Refusal::of(&error);
                    if refusal.is_of_session() && std::mem::take(&mut again) {
                        self.forget(&access.machine(), &base, deadline).await;
                        continue;
                    }
                    return Err(refusal.error(Action::AssumeRole, &access.way()));
                }
            }
        }
    }

    /// The slot of an access, which keeps the newest of its tokens. The one not used for longest goes when there are too many.
    fn slot(&self, access: &Access) -> Arc<Slot> {
        let name = access.digest();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.uses += 1;
        let now = slots.uses;
        if slots.by_access.len() >= MOST && !slots.by_access.contains_key(&name) {
            let used = |slot: &Slot| *slot.used.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = slots.by_access.iter().min_by_key(|(_, slot)| used(slot)).map(|(name, _)| *name);
            oldest.and_then(|oldest| slots.by_access.remove(&oldest));
        }
        let slot = Arc::clone(slots.by_access.entry(name).or_default());
        *slot.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        if let Credentials::WebIdentity { token, .. } = &access.credentials {
            let mut newest = slot.token.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.as_ref().is_none_or(|(order, _)| *order < access.order) {
                *newest = Some((access.order, token.clone()));
            }
        }
        slot
    }
}

impl Session {
    fn lives(&self) -> bool {
        self.keys.expiry().is_none_or(|ends| ends > SystemTime::now())
    }
}

/// Changes a token into a session of a role.
async fn with_web_identity(
    sts: &aws_sdk_sts::Client,
    access: &Access,
    role: &str,
    session_name: &str,
    token: &str,
    duration: Option<Duration>,
) -> Result<Keys, Error> {
    let answer = sts
        .assume_role_with_web_identity()
        .role_arn(role)
        .role_session_name(session_name)
        .web_identity_token(token)
        .set_duration_seconds(duration.and_then(|duration| i32::try_from(duration.as_secs()).ok()))
        .send()
        .await;
    match answer {
        Ok(output) => session_keys(output.credentials(), Action::WebIdentity),
        Err(error) => {
            let mut way = access.way();
            role.clone_into(&mut way.role);
            Err(Refusal::of(&error).error(Action::WebIdentity, &way))
        }
    }
}

fn session_keys(given: Option<&aws_sdk_sts::types::Credentials>, action: Action) -> Result<Keys, Error> {
    let given = given.ok_or_else(|| sentences::answer(action, "It has no credentials"))?;
    let ends = SystemTime::try_from(*given.expiration())
        .map_err(|_| sentences::answer(action, "The end of the session cannot be read"))?;
    let token = Some(given.session_token().to_owned());
    Ok(Keys::new(given.access_key_id(), given.secret_access_key(), token, Some(ends), PROVIDER))
}

/// What STS takes as the name of a session: `lictor-` and the agent's name, as far as it goes.
fn role_session_name(name: &str) -> String {
    let taken = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    let name: String = name.chars().map(|c| if taken(c) { c } else { '-' }).take(MAX_SESSION_NAME - 7).collect();
    format!("lictor-{name}")
}

const PROVIDER: &str = "lictor";
/// Sessions are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(60);
/// A refused identity is not asked about again for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a session may last that is had from a session of a role.
const CHAINED: Duration = Duration::from_secs(3600);
/// How long the question may take whether a session would be had from another one.
const ASIDE: Duration = Duration::from_secs(3);
/// Identities that are kept.
const MOST: usize = 256;
/// What STS takes as `RoleSessionName`.
const MAX_SESSION_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lictor_proto::v1::{AwsAssumeRole, KmsAccess, kms_access};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// STS that gives sessions and tells nobody who they are.
    async fn taciturn(listener: TcpListener) {
        let mut asked = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            let text = loop {
                match stream.read(&mut piece).await {
                    Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
                    _ => break String::new(),
                }
                let text = String::from_utf8_lossy(&request);
                if text.contains("Action=GetCallerIdentity") || text.contains("Action=AssumeRole") {
                    break text.into_owned();
                }
            };
            if text.contains("Action=AssumeRole") {
                let keys =
                    "<AccessKeyId>id</AccessKeyId><SecretAccessKey>k</SecretAccessKey><SessionToken>t</SessionToken>";
                let keys = format!("<Credentials>{keys}<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>");
                let body =
                    format!("<AssumeRoleResponse><AssumeRoleResult>{keys}</AssumeRoleResult></AssumeRoleResponse>");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            } else {
                asked.push(stream);
            }
        }
    }

    #[tokio::test]
    async fn a_long_session_is_had_although_sts_does_not_say_who_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let sts = tokio::spawn(taciturn(listener));
        let role = AwsAssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/lictor-kms".to_owned(),
            duration: Some(prost_types::Duration { seconds: 7200, nanos: 0 }),
            ..AwsAssumeRole::default()
        };
        let access = Access::parse(KmsAccess {
            key: "arn:aws:kms:eu-central-1:111122223333:alias/lictor".to_owned(),
            sts_endpoint: endpoint,
            credentials: Some(kms_access::Credentials::AssumeRole(role)),
            ..KmsAccess::default()
        })
        .unwrap();
        let machine = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "k")];
        let machine = machine.map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())));
        let environment = Environment::Given(BTreeMap::from(machine));
        let identities = Identities::new(Clients::new(&[]), environment, "agent");
        // Less than what the clients themselves would wait for an answer, and ask again.
        let session = identities.session(&access, Instant::now() + 3 * ASIDE).await.unwrap();
        assert!(session.source.contains("assumed with environment variables"), "{}", session.source);
        sts.abort();
    }

    #[test]
    fn the_name_of_a_session_is_what_sts_takes() {
        assert_eq!(role_session_name("edge 1/web+1"), "lictor-edge-1-web-1");
        assert_eq!(role_session_name(&"ä".repeat(200)).len(), MAX_SESSION_NAME);
    }

    #[test]
    fn short_sessions_are_used_for_most_of_their_life() {
        let session = |life: u64, left: u64| {
            let now = SystemTime::now();
            let ends = now + Duration::from_secs(left);
            let keys = Keys::new("id", "secret", None, Some(ends), PROVIDER);
            let clients = Clients::new(&[]);
            let access = crate::ladder::tests::machine();
            Session {
                kms: clients.kms(&access, keys.clone()),
                sts: clients.sts(&access, None),
                source: String::new(),
                keys,
                made: ends - Duration::from_secs(life),
            }
            .is_fresh()
        };
        assert!(session(3600, 90) && !session(3600, 30));
        assert!(session(40, 30) && !session(40, 5));
    }
}
