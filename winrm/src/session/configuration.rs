//! What a session asks about the service itself, without a shell: its configuration, listeners, mappings.

use tokio::time::Instant;

use super::{MAX_PAGES, Session, fault_error, new_id, unsendable};
use crate::error::{Error, ErrorKind, Stage};
use crate::wsman::{CertificateMapping, Config, Listed, Listener, Listing, Response};

/// Items of one listing at most.
const MAX_ITEMS: usize = 1000;

impl Session {
    /// The configuration of the service.
    pub(crate) async fn configuration(&mut self, deadline: Instant) -> Result<Config, Error> {
        let id = new_id();
        let envelope = self.requests.configuration(id).map_err(|error| unsendable(Stage::Run, error))?;
        match self.call(Stage::Run, "Get", id, envelope, self.wait(deadline)).await? {
            Response::Configured(config) => Ok(*config),
            Response::Fault(fault) => Err(fault_error(Stage::Run, fault)),
            other => Err(self.unexpected(Stage::Run, &other)),
        }
    }

    /// Where the service listens.
    pub(crate) async fn listeners(&mut self, deadline: Instant) -> Result<Vec<Listener>, Error> {
        let listed = self.pages(Listing::Listeners, deadline).await?;
        Ok(listed.into_iter().flat_map(Listed::into_listeners).collect())
    }

    /// Which client certificates stand for which accounts.
    pub(crate) async fn certificate_mappings(&mut self, deadline: Instant) -> Result<Vec<CertificateMapping>, Error> {
        let listed = self.pages(Listing::CertificateMappings, deadline).await?;
        Ok(listed.into_iter().flat_map(Listed::into_mappings).collect())
    }

    /// A listing page by page. Half of one must not be taken for the whole, so that one without end is an error.
    async fn pages(&mut self, listing: Listing, deadline: Instant) -> Result<Vec<Listed>, Error> {
        let mut pages = Vec::new();
        let mut id = new_id();
        let mut envelope = self.requests.list(id, listing).map_err(|error| unsendable(Stage::Run, error))?;
        let mut operation = "Enumerate";
        loop {
            let mut listed = match self.call(Stage::Run, operation, id, envelope, self.wait(deadline)).await? {
                Response::Listed(listed) => listed,
                Response::Fault(fault) => return Err(fault_error(Stage::Run, fault)),
                other => return Err(self.unexpected(Stage::Run, &other)),
            };
            let more = listed.more.take();
            pages.push(listed);
            let items: usize = pages.iter().map(|page| page.listeners.len() + page.mappings.len() + page.unread).sum();
            if items > MAX_ITEMS || (more.is_some() && pages.len() == MAX_PAGES) {
                drop(self.disconnect());
                let detail = "a listing without end".to_owned();
                return Err(Error::new(Stage::Run, ErrorKind::SoapMalformed { detail }));
            }
            let Some(context) = more else { return Ok(pages) };
            operation = "Pull";
            id = new_id();
            envelope = self.requests.list_more(id, listing, &context).map_err(|error| unsendable(Stage::Run, error))?;
        }
    }
}
