//! Whether the control plane can be reached and is the one that this agent trusts: name, connection, proxy, TLS.
//!
//! It ends before the first call. A session would take the place of that of an agent that runs, and an enrolment would spend the
//! join token.

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::report::Book;
use super::{Advice, advice};
use crate::config::Loaded;
use crate::enrol::proxy::Way;
use crate::enrol::tls::{ConnectError, Route, connect, identified, pinned};
use crate::enrol::{Identity, TokenSource};
use crate::failure::chain;

pub(super) async fn look(loaded: &Loaded, identity: Option<&Identity>, book: &mut Book) {
    let config = &loaded.config;
    let address = &config.control_plane;
    let way = config.proxy.clone().map(|proxy| Way::new(proxy, loaded.proxy_password.clone()));
    match way.as_ref().filter(|way| way.serves(address.host(), address.port())) {
        Some(way) => {
            book.skipped("resolve", format!("the proxy {} resolves {}", way.authority(), address.authority()));
        }
        None => match timeout(RESOLVE, lookup_host((address.host(), address.port()))).await {
            Ok(Ok(found)) => {
                let found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                book.passed("resolve", format!("{}: {}", address.host(), found.join(", ")));
            }
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {} s", RESOLVE.as_secs()),
                };
                let message = format!("failed to find an address of {}: {why}", address.host());
                book.failed("resolve", "", advice::RESOLVE.about(message));
                book.skipped("connect", "it has no address");
                return;
            }
        },
    }
    let trust = match identity {
        Some(identity) => {
            Some((identified(identity), "its certificate is of the authority that the agent enrolled with"))
        }
        None => {
            let tokens = TokenSource { value: loaded.join_token.clone(), file: config.join_token_file.clone() };
            let token = tokens.read().ok();
            token.map(|token| {
                (pinned(token.pin), "it has the authority that the join token pins; the token was not used")
            })
        }
    };
    let Some((trust, what)) = trust else {
        return book.skipped("connect", "without an identity or a join token nobody can tell who answers");
    };
    let route = Route { address: address.clone(), proxy: way };
    let connected = match trust {
        Ok(trust) => connect(&route, trust).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(channel) => {
            drop(channel);
            book.passed("connect", address.authority());
            book.passed("tls", what);
        }
        Err(error) => {
            let (check, finding) = match &error {
                ConnectError::Proxy { source, .. } => {
                    let found = source.advice();
                    let advice = Advice { code: found.code, example: "", cause: found.cause, remedy: found.remedy };
                    ("proxy", advice.about(chain(&error)))
                }
                ConnectError::Tcp { .. } | ConnectError::Timeout { .. } => {
                    ("connect", advice::CONNECT.about(chain(&error)))
                }
                ConnectError::Pin { .. } => ("tls", advice::PIN.about(chain(&error))),
                ConnectError::Tls { .. } | ConnectError::Grpc { .. } => ("tls", advice::TLS.about(chain(&error))),
                ConnectError::Setup(_) => ("tls", advice::IDENTITY.about(chain(&error))),
            };
            book.failed(check, "", finding);
        }
    }
}

const RESOLVE: std::time::Duration = std::time::Duration::from_secs(10);
