//! Reads a host's WinRM configuration over one connection of its own, without opening a shell.
//!
//! Hosts tell it to administrators only: each part says for itself why it is not there. Changes nothing. Called by the pool,
//! which connects, for those who judge how safe a host is.

use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::{Connection, ConnectionDetails};
use crate::error::Error;
use crate::session::Session;
use crate::target::Target;
use crate::wsman::{CertificateMapping, Config, Listener};

/// What a host told. An error of one part is a fault of the host, such as missing rights.
#[derive(Debug)]
pub struct Configuration {
    /// How the service is configured.
    pub config: Result<Config, Error>,
    /// Where it listens.
    pub listeners: Result<Vec<Listener>, Error>,
    /// Which client certificates stand for which accounts.
    pub mappings: Result<Vec<CertificateMapping>, Error>,
    /// The connection that it came over.
    pub connection: ConnectionDetails,
}

/// Reads the configuration over `connection` until `deadline`. `judged` learns what came of the first request.
pub(crate) async fn read(
    connection: Connection,
    target: &Target,
    deadline: Instant,
    judged: impl FnOnce(&Result<Config, Error>),
) -> Result<Configuration, Error> {
    let details = connection.info().clone();
    // No shell is made, so that no name is needed.
    let mut session = Session::new(target.clone(), Arc::from(""));
    session.connect(connection);
    let config = session.configuration(deadline).await;
    judged(&config);
    Ok(Configuration {
        config: told(config)?,
        listeners: told(session.listeners(deadline).await)?,
        mappings: told(session.certificate_mappings(deadline).await)?,
        connection: details,
    })
}

/// Only a fault leaves the connection as it is.
fn told<T>(answer: Result<T, Error>) -> Result<Result<T, Error>, Error> {
    match answer {
        Err(error) if error.fault().is_none() || error.credential_rejected() => Err(error),
        answer => Ok(answer),
    }
}
