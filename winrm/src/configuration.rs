//! Reads a host's WinRM configuration over one connection of its own, without opening a shell.
//!
//! Hosts tell it to administrators only: each part says for itself why it is not there. Changes nothing, and tries the
//! credential once. Called by those who judge how safe a host is.

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

/// Connects and reads the configuration until `deadline`.
///
/// # Errors
/// [`Error`] of the stage that failed, when the host could not be talked to. What the host refuses to tell is none.
pub async fn read(target: &Target, deadline: Instant) -> Result<Configuration, Error> {
    let connection = Connection::open(target, deadline).await?;
    let details = connection.info().clone();
    // No shell is made, so that no name is needed.
    let mut session = Session::new(target.clone(), Arc::from(""));
    session.connect(connection);
    Ok(Configuration {
        config: told(session.configuration(deadline).await)?,
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
