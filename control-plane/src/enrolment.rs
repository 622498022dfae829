//! Whether an agent may enrol, and as whom. Pure; the engine asks it with what the records say.
//!
//! The secret of the join token has been proven before. What is decided here is whether the token still counts, and
//! whether its holder may have the name that is asked for: names belong to agents, and a token is no leave to take one
//! over from an agent that lives.

use std::time::Duration;

use crate::access::within;
use crate::clock::UnixMillis;
use crate::store::fleet::JoinTokenRecord;

/// An agent that has the name already.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) agent_id: String,
    pub(crate) scope: String,
    pub(crate) revoked_at: Option<UnixMillis>,
    pub(crate) connected: bool,
    /// The request is signed with the key of one of its certificates that count.
    pub(crate) same_key: bool,
    /// When it enrolled with this very token and this very key.
    pub(crate) enrolled_by_this: Option<UnixMillis>,
}

/// What becomes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new agent.
    New,
    /// The agent that has the name enrols anew.
    Again(String),
    /// The answer to this very enrolment was lost: once more, without spending the token.
    Repeat(String),
    /// Refused.
    Refused(Refused),
}

/// Why an enrolment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the join token was revoked")]
    Revoked,
    #[error("the join token has expired")]
    Expired,
    #[error("the join token is used up")]
    UsedUp,
    /// The agent was revoked after the token was made.
    #[error("the agent was revoked, and this join token is older than that")]
    AgentRevoked,
    /// The agent asks for more than its token is for.
    #[error("the agent asks for a scope that this join token is not for")]
    BeyondScope,
    /// The name belongs to an agent of another scope.
    #[error("the name belongs to an agent that this join token cannot enrol")]
    OtherScope,
    /// The agent that has the name is connected.
    #[error("an agent of this name is connected")]
    Connected,
}

/// The scope that the agent gets: what it asks for, within that of its token. Nothing: it asks for more.
pub(crate) fn scope<'a>(token: &'a JoinTokenRecord, asked: &'a str) -> Option<&'a str> {
    match asked {
        "" => Some(&token.scope),
        asked => within(&token.scope, asked).then_some(asked),
    }
}

/// Decides about an agent that asks for the scope `asked`.
pub(crate) fn decide(token: &JoinTokenRecord, asked: &str, holder: Option<&Holder>, now: UnixMillis) -> Verdict {
    if token.revoked_at.is_some() {
        return Verdict::Refused(Refused::Revoked);
    }
    if let Some(holder) = holder
        && holder.revoked_at.is_none()
        && holder.enrolled_by_this.is_some_and(|at| now < at.plus(REPEAT_WINDOW))
    {
        return Verdict::Repeat(holder.agent_id.clone());
    }
    if token.expires_at.is_some_and(|at| at <= now) {
        return Verdict::Refused(Refused::Expired);
    }
    if token.max_uses > 0 && token.uses >= token.max_uses {
        return Verdict::Refused(Refused::UsedUp);
    }
    let Some(scope) = scope(token, asked) else { return Verdict::Refused(Refused::BeyondScope) };
    let Some(holder) = holder else { return Verdict::New };
    if holder.scope != scope {
        return Verdict::Refused(Refused::OtherScope);
    }
    if holder.revoked_at.is_some_and(|at| token.created_at <= at) {
        return Verdict::Refused(Refused::AgentRevoked);
    }
    if holder.connected && !holder.same_key {
        return Verdict::Refused(Refused::Connected);
    }
    Verdict::Again(holder.agent_id.clone())
}

/// Longer than an agent keeps trying with one key before somebody restarts it; short, because within it a used token still
/// is of use, if only to who holds the agent's key.
const REPEAT_WINDOW: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn token() -> JoinTokenRecord {
        JoinTokenRecord {
            token_id: "t".into(),
            secret_hash: Vec::new(),
            scope: "team".into(),
            tags: Vec::new(),
            max_uses: 1,
            uses: 0,
            created_at: UnixMillis(1000),
            expires_at: None,
            revoked_at: None,
            description: String::new(),
        }
    }

    fn holder() -> Holder {
        Holder {
            agent_id: "a".into(),
            scope: "team".into(),
            revoked_at: None,
            connected: false,
            same_key: false,
            enrolled_by_this: None,
        }
    }

    #[test]
    fn a_token_that_counts_makes_an_agent_and_others_do_not() {
        assert_eq!(decide(&token(), "", None, NOW), Verdict::New);
        for (token, why) in [
            (JoinTokenRecord { revoked_at: Some(NOW), ..token() }, Refused::Revoked),
            (JoinTokenRecord { expires_at: Some(NOW), ..token() }, Refused::Expired),
            (JoinTokenRecord { uses: 1, ..token() }, Refused::UsedUp),
        ] {
            assert_eq!(decide(&token, "", None, NOW), Verdict::Refused(why));
        }
        assert_eq!(decide(&JoinTokenRecord { max_uses: 0, uses: 9, ..token() }, "", None, NOW), Verdict::New);
    }

    #[test]
    fn a_name_is_taken_over_only_within_the_scope_and_from_who_is_gone() {
        let again = Verdict::Again("a".into());
        for (holder, expected) in [
            (holder(), again.clone()),
            (Holder { scope: "team/a".into(), ..holder() }, Verdict::Refused(Refused::OtherScope)),
            (Holder { scope: String::new(), ..holder() }, Verdict::Refused(Refused::OtherScope)),
            (Holder { connected: true, ..holder() }, Verdict::Refused(Refused::Connected)),
            (Holder { connected: true, same_key: true, ..holder() }, again.clone()),
            (Holder { revoked_at: Some(UnixMillis(1000)), ..holder() }, Verdict::Refused(Refused::AgentRevoked)),
            (Holder { revoked_at: Some(UnixMillis(999)), ..holder() }, again),
        ] {
            assert_eq!(decide(&token(), "", Some(&holder), NOW), expected, "{holder:?}");
        }
    }

    #[test]
    fn an_agent_may_ask_for_less_than_its_token_is_for_and_never_for_more() {
        let beyond = Verdict::Refused(Refused::BeyondScope);
        for (scope, asked, expected) in [
            ("team", "", Verdict::New),
            ("team", "team", Verdict::New),
            ("team", "team/web", Verdict::New),
            ("", "team/web", Verdict::New),
            ("team", "teams", beyond.clone()),
            ("team/web", "team", beyond.clone()),
            ("team", "other/web", beyond.clone()),
        ] {
            let token = JoinTokenRecord { scope: scope.into(), ..token() };
            assert_eq!(decide(&token, asked, None, NOW), expected, "{scope:?} {asked:?}");
        }
        // A name is that of an agent in the scope that it has, not in that of the token.
        let below = Holder { scope: "team/web".into(), ..holder() };
        assert_eq!(decide(&token(), "team/web", Some(&below), NOW), Verdict::Again("a".into()));
        assert_eq!(decide(&token(), "", Some(&below), NOW), Verdict::Refused(Refused::OtherScope));
        assert_eq!(decide(&token(), "team/web", Some(&holder()), NOW), Verdict::Refused(Refused::OtherScope));
    }

    #[test]
    fn a_lost_answer_is_given_again_for_a_while_and_not_to_the_revoked() {
        let spent = JoinTokenRecord { uses: 1, expires_at: Some(UnixMillis(1)), ..token() };
        let just = Some(UnixMillis(NOW.0 - 599_999));
        let holder = Holder { enrolled_by_this: just, same_key: true, ..holder() };
        assert_eq!(decide(&spent, "", Some(&holder), NOW), Verdict::Repeat("a".into()));
        let revoked = JoinTokenRecord { revoked_at: Some(NOW), ..spent.clone() };
        assert_eq!(decide(&revoked, "", Some(&holder), NOW), Verdict::Refused(Refused::Revoked));
        let gone = Holder { revoked_at: Some(NOW), ..holder.clone() };
        assert!(matches!(decide(&spent, "", Some(&gone), NOW), Verdict::Refused(_)));
        let long_ago = Holder { enrolled_by_this: Some(UnixMillis(NOW.0 - 600_000)), ..holder };
        assert!(matches!(decide(&spent, "", Some(&long_ago), NOW), Verdict::Refused(_)));
    }
}
