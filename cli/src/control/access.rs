//! Users, their tokens, and who we are.

use lictor_proto::v1;
use lictor_winrm::target::Secret;
use serde::Serialize;

use super::connect::{ControlPlane, unary};
use super::view::{IdentityView, UserTokenView, UserView, user_table, user_token_table};
use super::{MAX_LISTED, present, print_list, print_one, settings};
use crate::args::Output;
use crate::args::access::{Role, UserArgs, UserCommand, UserTokenCommand, WhoAmIArgs};
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;

/// `lictor user`.
pub(crate) async fn user(args: UserArgs, output: Output) -> Result<Exit, Failure> {
    let control_plane = ControlPlane::connect(&args.server).await?;
    let mut access = control_plane.access();
    let user = match args.command {
        UserCommand::Create { name, role, scope, description } => {
            let role = match role {
                Role::Viewer => v1::Role::Viewer,
                Role::Operator => v1::Role::Operator,
                Role::Admin => v1::Role::Admin,
            };
            let request = v1::CreateUserRequest { name, role: role.into(), scope, description };
            unary(access.create_user(request)).await?.user
        }
        UserCommand::Disable { name } => unary(access.disable_user(v1::DisableUserRequest { name })).await?.user,
        UserCommand::Enable { name } => unary(access.enable_user(v1::EnableUserRequest { name })).await?.user,
        UserCommand::List => {
            let mut users = Vec::new();
            let mut page_token = String::new();
            loop {
                let page = unary(access.list_users(v1::ListUsersRequest { page_size: 0, page_token })).await?;
                users.extend(page.users.into_iter().map(UserView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || users.len() >= MAX_LISTED {
                    return print_list(users, "users", user_table, output);
                }
            }
        }
        UserCommand::Token(command) => return token(&control_plane, command, output).await,
    };
    print_one(&UserView::from(present(user, "user")?), UserView::state_line, output)
}

async fn token(control_plane: &ControlPlane, command: UserTokenCommand, output: Output) -> Result<Exit, Failure> {
    let mut access = control_plane.access();
    match command {
        UserTokenCommand::Issue { user, lifetime, description } => {
            let lifetime = lifetime.map(settings::proto_duration);
            let request = v1::IssueUserTokenRequest { user, lifetime, description };
            let answer = unary(access.issue_user_token(request)).await?;
            let token = Secret::new(answer.token);
            match output {
                Output::Text => console::print_line(token.expose())?,
                Output::Json => {
                    #[derive(Serialize)]
                    struct Issued<'a> {
                        token: &'a str,
                        user_token: UserTokenView,
                    }
                    let user_token = UserTokenView::from(present(answer.user_token, "user token")?);
                    console::print_json(&Issued { token: token.expose(), user_token })?;
                }
            }
            Ok(Exit::SUCCESS)
        }
        UserTokenCommand::List { user } => {
            let user = user.unwrap_or_default();
            let mut tokens = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListUserTokensRequest { user: user.clone(), page_size: 0, page_token };
                let page = unary(access.list_user_tokens(request)).await?;
                tokens.extend(page.user_tokens.into_iter().map(UserTokenView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || tokens.len() >= MAX_LISTED {
                    return print_list(tokens, "user_tokens", user_token_table, output);
                }
            }
        }
        UserTokenCommand::Revoke { token_id } => {
            let answer = unary(access.revoke_user_token(v1::RevokeUserTokenRequest { token_id })).await?;
            let view = UserTokenView::from(present(answer.user_token, "user token")?);
            print_one(&view, UserTokenView::state_line, output)
        }
    }
}

/// `lictor whoami`.
pub(crate) async fn whoami(args: WhoAmIArgs, output: Output) -> Result<Exit, Failure> {
    let control_plane = ControlPlane::connect(&args.server).await?;
    let answer = unary(control_plane.access().who_am_i(v1::WhoAmIRequest {})).await?;
    let view = IdentityView {
        user: UserView::from(present(answer.user, "user")?),
        token: UserTokenView::from(present(answer.token, "user token")?),
    };
    print_one(&view, IdentityView::page, output)
}
