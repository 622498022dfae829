//! The commands that go through the control plane: tasks, agents, join tokens, credentials, secrets, users, the audit log.

mod access;
mod audit;
mod batch;
mod connect;
mod import;
mod manager;
mod secret;
mod settings;
mod submit;
mod view;
mod watch;

use std::io;
use std::path::Path;

use lictor_kerberos::keytab::Keytab;
use lictor_proto::v1;
use lictor_winrm::target::Secret;
use serde::Serialize;
use tonic::Request;
use zeroize::Zeroizing;

use crate::args::Output;
use crate::args::control::{
    AgentArgs, AgentCommand, CredentialArgs, CredentialCommand, KinitMode, PutArgs, StateFilter, TaskArgs, TaskCommand,
    TestCredentialArgs, TokenArgs, TokenCommand,
};
use crate::console;
use crate::direct::PASSWORD_VARIABLE;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::input;
pub(crate) use access::{user, whoami};
pub(crate) use audit::audit;
pub(crate) use batch::batch;
use connect::{ControlPlane, unary};
pub(crate) use manager::secret_manager;
pub(crate) use secret::secret;
use view::{AgentView, CredentialView, TaskView, TokenView};

/// `lictor task`.
pub(crate) async fn task(args: TaskArgs, output: Output) -> Result<Exit, Failure> {
    match args.command {
        TaskCommand::Submit(submit) => {
            // Files first: a mistake in them should not wait for the network.
            let request = submit::request(&submit)?;
            if submit.host.is_none() {
                return batch::submit(&args.server, &submit, request, output).await;
            }
            let control_plane = ControlPlane::connect(&args.server).await?;
            let answer = unary(control_plane.tasks().submit_task(Request::new(request))).await?;
            let task = present(answer.task, "task")?;
            if submit.watch {
                if output == Output::Text {
                    watch::announce(&task.task_id);
                }
                return watch::watch(&control_plane, &task.task_id, 0, output).await;
            }
            match output {
                Output::Json => console::print_json(&TaskView::from(task))?,
                Output::Text => console::print_line(&task.task_id)?,
            }
            Ok(Exit::SUCCESS)
        }
        TaskCommand::List { limit, states, batch } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let tasks = list_tasks(&control_plane, limit, &states, &batch).await?;
            print_list(tasks.into_iter().map(TaskView::from).collect(), "tasks", view::task_table, output)
        }
        TaskCommand::Show { task_id } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let answer = unary(control_plane.tasks().get_task(v1::GetTaskRequest { task_id })).await?;
            print_one(&TaskView::from(present(answer.task, "task")?), view::task_page, output)
        }
        TaskCommand::Watch { task_id, from_offset } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            watch::watch(&control_plane, &task_id, from_offset, output).await
        }
        TaskCommand::Cancel { task_id, reason } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let answer = unary(control_plane.tasks().cancel_task(v1::CancelTaskRequest { task_id, reason })).await?;
            print_one(&TaskView::from(present(answer.task, "task")?), TaskView::state_line, output)
        }
    }
}

/// `lictor agent`.
pub(crate) async fn agent(args: AgentArgs, output: Output) -> Result<Exit, Failure> {
    let control_plane = ControlPlane::connect(&args.server).await?;
    let mut fleet = control_plane.fleet();
    let agent = match args.command {
        AgentCommand::List => {
            let mut agents = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListAgentsRequest { page_size: 0, page_token };
                let page = unary(fleet.list_agents(request)).await?;
                agents.extend(page.agents.into_iter().map(AgentView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || agents.len() >= MAX_LISTED {
                    return print_list(agents, "agents", view::agent_table, output);
                }
            }
        }
        AgentCommand::Drain { agent, reason } => {
            unary(fleet.drain_agent(v1::DrainAgentRequest { agent, reason })).await?.agent
        }
        AgentCommand::Revoke { agent, reason } => {
            unary(fleet.revoke_agent(v1::RevokeAgentRequest { agent, reason })).await?.agent
        }
    };
    print_one(&AgentView::from(present(agent, "agent")?), AgentView::state_line, output)
}

/// `lictor token`.
pub(crate) async fn token(args: TokenArgs, output: Output) -> Result<Exit, Failure> {
    let control_plane = ControlPlane::connect(&args.server).await?;
    let mut fleet = control_plane.fleet();
    match args.command {
        TokenCommand::Create { scope, tags, max_uses, lifetime, description } => {
            let lifetime = lifetime.map(settings::proto_duration);
            let request = v1::CreateJoinTokenRequest { scope, tags, max_uses, lifetime, description };
            let answer = unary(fleet.create_join_token(request)).await?;
            let token = Secret::new(answer.token);
            match output {
                Output::Text => console::print_line(token.expose())?,
                Output::Json => {
                    #[derive(Serialize)]
                    struct Created<'a> {
                        token: &'a str,
                        join_token: TokenView,
                    }
                    let join_token = TokenView::from(present(answer.join_token, "join token")?);
                    console::print_json(&Created { token: token.expose(), join_token })?;
                }
            }
            Ok(Exit::SUCCESS)
        }
        TokenCommand::List => {
            let mut tokens = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListJoinTokensRequest { page_size: 0, page_token };
                let page = unary(fleet.list_join_tokens(request)).await?;
                tokens.extend(page.join_tokens.into_iter().map(TokenView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || tokens.len() >= MAX_LISTED {
                    return print_list(tokens, "join_tokens", view::token_table, output);
                }
            }
        }
        TokenCommand::Revoke { token_id } => {
            let answer = unary(fleet.revoke_join_token(v1::RevokeJoinTokenRequest { token_id })).await?;
            print_one(&TokenView::from(present(answer.join_token, "join token")?), TokenView::state_line, output)
        }
    }
}

/// `lictor credential`.
pub(crate) async fn credential(args: CredentialArgs, output: Output) -> Result<Exit, Failure> {
    match args.command {
        CredentialCommand::Put(put) => {
            let (credential, secret) = credential_to_put(*put)?;
            let control_plane = ControlPlane::connect(&args.server).await?;
            let view = put_credential(&control_plane, credential, secret.as_ref()).await?;
            print_one(&view, CredentialView::state_line, output)
        }
        CredentialCommand::Import(import) => import::run(&args.server, import, output).await,
        CredentialCommand::List => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let mut credentials = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListCredentialsRequest { page_size: 0, page_token };
                let page = unary(control_plane.credentials().list_credentials(request)).await?;
                credentials.extend(page.credentials.into_iter().map(CredentialView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || credentials.len() >= MAX_LISTED {
                    return print_list(credentials, "credentials", view::credential_table, output);
                }
            }
        }
        CredentialCommand::Delete { name } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            unary(control_plane.credentials().delete_credential(v1::DeleteCredentialRequest { name: name.clone() }))
                .await?;
            print_deleted("credential", name, output)
        }
        CredentialCommand::Test(test) => {
            let request = test_request(*test)?;
            let control_plane = ControlPlane::connect(&args.server).await?;
            let answer = unary(control_plane.credentials().test_credential(request)).await?;
            let task = present(answer.task, "task")?;
            watch::watch(&control_plane, &task.task_id, 0, output).await
        }
    }
}

/// What goes to the control plane beside a credential.
#[derive(Debug)]
enum StoredSecret {
    Password(Secret),
    Keytab(Zeroizing<Vec<u8>>),
}

/// Stores one.
async fn put_credential(
    control_plane: &ControlPlane,
    credential: v1::Credential,
    secret: Option<&StoredSecret>,
) -> Result<CredentialView, Failure> {
    let (password, keytab) = match secret {
        Some(StoredSecret::Password(password)) => (Some(password.expose().to_owned()), Vec::new()),
        Some(StoredSecret::Keytab(keytab)) => (None, keytab.to_vec()),
        None => (None, Vec::new()),
    };
    let request = v1::PutCredentialRequest { credential: Some(credential), password, keytab };
    let answer = unary(control_plane.credentials().put_credential(request)).await?;
    Ok(CredentialView::from(present(answer.credential, "credential")?))
}

fn credential_to_put(put: PutArgs) -> Result<(v1::Credential, Option<StoredSecret>), Failure> {
    let connection = settings::connection(&put.connection)?;
    let manual = put.connection.kerberos.kinit_mode == Some(KinitMode::Manual);
    let (secret_kind, agent_path) = match (&put.keytab_on_agent, &put.ccache_on_agent) {
        (Some(path), _) => (v1::CredentialSecretKind::KeytabOnAgent, path.clone()),
        (None, Some(cache)) => (v1::CredentialSecretKind::CacheOnAgent, cache.clone()),
        (None, None)
            if manual
                && !put.keep_password
                && put.password_file.is_none()
                && put.keytab.is_none()
                && put.secret_identifier.is_none() =>
        {
            (v1::CredentialSecretKind::CacheOnAgent, String::new())
        }
        (None, None) => (v1::CredentialSecretKind::Unspecified, String::new()),
    };
    let on_agent = secret_kind != v1::CredentialSecretKind::Unspecified;
    let stored = match &put.secret_identifier {
        Some(secret) => settings::identifier("--secret", secret)?,
        None => String::new(),
    };
    let secret = if let Some(path) = &put.keytab {
        Some(StoredSecret::Keytab(keytab(path)?))
    } else if put.keep_password || on_agent || !stored.is_empty() {
        None
    } else {
        let password = input::secret("password", put.password_file.as_deref(), PASSWORD_VARIABLE)?;
        let Some(password) = password else {
            return Err(Failure::usage(
                "there is no password",
                "Give --password-file FILE, or set the environment variable LICTOR_PASSWORD; for Kerberos --keytab FILE, \
                 --keytab-on-agent or --ccache-on-agent. --secret ID takes a stored secret; --keep-password changes only the rest.",
            ));
        };
        Some(StoredSecret::Password(password))
    };
    let credential = v1::Credential {
        name: put.name,
        username: put.user,
        domain: put.domain,
        connection: Some(connection),
        no_profile: put.no_profile,
        description: put.description,
        scope: put.scope,
        secret_kind: secret_kind.into(),
        agent_path,
        secret: stored,
        ..v1::Credential::default()
    };
    Ok((credential, secret))
}

/// Reads a keytab, and says here what is wrong with it rather than on an agent.
fn keytab(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = Zeroizing::new(input::bytes("keytab", path, MAX_KEYTAB_BYTES)?);
    match Keytab::parse(&bytes) {
        Ok(parsed) if !parsed.entries().is_empty() => Ok(bytes),
        Ok(_) => {
            Err(Failure::unreadable("keytab", path, &io::Error::new(io::ErrorKind::InvalidData, "it holds no key")))
        }
        Err(error) => Err(Failure::unreadable("keytab", path, &io::Error::new(io::ErrorKind::InvalidData, error))),
    }
}

fn test_request(test: TestCredentialArgs) -> Result<v1::TestCredentialRequest, Failure> {
    let connection = settings::connection(&test.connection)?;
    Ok(v1::TestCredentialRequest {
        name: test.name,
        target: Some(v1::Target { host: test.host, connection: Some(connection) }),
        selector: Some(v1::AgentSelector { tags: test.selector.tags, scope: test.selector.scope }),
    })
}

async fn list_tasks(
    control_plane: &ControlPlane,
    limit: u32,
    states: &[StateFilter],
    batch_id: &str,
) -> Result<Vec<v1::Task>, Failure> {
    let states: Vec<i32> = states.iter().map(|state| settings::state(*state).into()).collect();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut client = control_plane.tasks();
    let mut tasks = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = u32::try_from(limit.saturating_sub(tasks.len()).min(TASKS_PER_PAGE)).unwrap_or_default();
        let request =
            v1::ListTasksRequest { page_size, page_token, states: states.clone(), batch_id: batch_id.to_owned() };
        let page = unary(client.list_tasks(request)).await?;
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() || tasks.len() >= limit {
            tasks.truncate(limit);
            return Ok(tasks);
        }
    }
}

/// A part of an answer that the contract promises.
fn present<T>(part: Option<T>, what: &str) -> Result<T, Failure> {
    part.ok_or_else(|| broken_answer(what))
}

/// An answer that lacks a part that the contract promises.
fn broken_answer(what: &str) -> Failure {
    Failure::own(
        Exit::AGENT,
        "control_plane",
        "control_plane.broken_answer",
        format!("the answer holds no {what}"),
        "The control plane speaks another version of the contract.".to_owned(),
        "Use programs of the same version.".to_owned(),
    )
}

/// Prints one thing.
fn print_one<T: Serialize>(view: &T, text: impl FnOnce(&T) -> String, output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => console::print_json(view)?,
        Output::Text => console::print(&text(view))?,
    }
    Ok(Exit::SUCCESS)
}

/// Says that something is gone.
fn print_deleted(what: &str, deleted: String, output: Output) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Deleted {
        deleted: String,
    }
    print_one(&Deleted { deleted }, |view| format!("{what} {} deleted\n", clean(&view.deleted)), output)
}

/// Prints many things: a table, or an object with one array.
fn print_list<T: Serialize>(
    views: Vec<T>,
    name: &str,
    table: impl FnOnce(&[T]) -> String,
    output: Output,
) -> Result<Exit, Failure> {
    match output {
        Output::Json => console::print_json(&std::collections::BTreeMap::from([(name, views)]))?,
        Output::Text => console::print(&table(&views))?,
    }
    Ok(Exit::SUCCESS)
}

/// How many tasks one request asks for: small pages keep large scripts within the message bound.
const TASKS_PER_PAGE: usize = 50;

/// The most that the control plane stores.
const MAX_KEYTAB_BYTES: usize = 64 * 1024;

/// Bounds a list, whatever the control plane answers.
const MAX_LISTED: usize = 100_000;
