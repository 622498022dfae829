//! Enumerate, Pull and Release over the caller's shells, and over listeners and mappings of certificates.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Caller, Host, SHELL};
use crate::configuration::LISTENER;
use crate::envelope::{Request, guid};
use crate::fault::Fault;
use crate::soap::namespace;

/// A listing that has not been pulled to its end.
pub(super) struct Listing {
    owner: String,
    /// Of what.
    resource: String,
    since: Instant,
    left: VecDeque<String>,
}

/// Listings that are kept. Windows has a limit of its own on operations.
const MAX_LISTINGS: usize = 64;
/// EnumerationTimeoutms.
const LISTING: Duration = Duration::from_secs(240);
/// What an envelope costs around the items, generously.
const ENVELOPE: usize = 2048;

impl Host {
    pub(super) fn enumerate(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        // Without OptimizeEnumeration nothing comes before the first Pull ([DSP0226] 8.2.3).
        let optimized = request.body.child(namespace::MANAGEMENT, "OptimizeEnumeration").is_some();
        let room = if optimized { self.batch(request, namespace::MANAGEMENT)? } else { 0 };
        let now = self.clock.now();
        let left = match request.resource.as_str() {
            SHELL => self.own_shells(caller),
            LISTENER => self.listeners().into_iter().map(|(_, element)| element).collect(),
            _ => self.configuration().mapping_elements(),
        };
        let (owner, resource) = (caller.user.clone(), request.resource.clone());
        let listing = Listing { owner, resource, since: now, left: left.into() };
        let (items, context) = self.continue_listing(request, listing, room);
        let rest = match (&context, optimized) {
            (_, false) => String::new(),
            (Some(_), true) => format!("<w:Items>{items}</w:Items>"),
            (None, true) => format!("<w:Items>{items}</w:Items><w:EndOfSequence/>"),
        };
        let context = context.unwrap_or_default();
        Ok(format!(
            "<n:EnumerateResponse><n:EnumerationContext>{context}</n:EnumerationContext>{rest}</n:EnumerateResponse>"
        ))
    }

    fn own_shells(&self, caller: &Caller) -> Vec<String> {
        let now = self.clock.now();
        let mut shells: Vec<_> = {
            let state = self.lock();
            let own = state.shells.values().filter(|shell| shell.owner == caller.user);
            own.map(|shell| (shell.created, shell.id.clone(), shell.element(Some("Connected"), now))).collect()
        };
        shells.sort();
        shells.into_iter().map(|(_, _, element)| element).collect()
    }

    pub(super) fn pull(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let room = self.batch(request, namespace::ENUMERATION)?;
        let listing = self.take_listing(request, caller)?;
        let (items, context) = self.continue_listing(request, listing, room);
        let (before, after) = match context {
            Some(context) => (format!("<n:EnumerationContext>{context}</n:EnumerationContext>"), ""),
            None => (String::new(), "<n:EndOfSequence/>"),
        };
        Ok(format!("<n:PullResponse>{before}<n:Items>{items}</n:Items>{after}</n:PullResponse>"))
    }

    pub(super) fn release(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        self.take_listing(request, caller)?;
        Ok(String::new())
    }

    /// How many items an answer may hold: MaxElements of the request, one when it does not say, but never more than MaxBatchItems.
    fn batch(&self, request: &Request, namespace: &str) -> Result<usize, Fault> {
        let most = self.conditions.quotas().max_batch_items;
        match request.body.child(namespace, "MaxElements") {
            None => Ok(1.min(most)),
            Some(element) => match element.text.trim().parse::<usize>() {
                Ok(wanted @ 1..) => Ok(wanted.min(most)),
                _ => Err(self.against(request, Fault::schema(), "MaxElements is not a number")),
            },
        }
    }

    /// The next items, as many as there is room for, and the context for the rest.
    fn continue_listing(&self, request: &Request, mut listing: Listing, room: usize) -> (String, Option<String>) {
        let limit = request.max_envelope_size.min(self.options.max_envelope_size).saturating_sub(ENVELOPE);
        let mut items = String::new();
        for _ in 0..room {
            match listing.left.pop_front() {
                Some(item) if items.is_empty() || items.len() + item.len() <= limit => items.push_str(&item),
                Some(item) => {
                    listing.left.push_front(item);
                    break;
                }
                None => break,
            }
        }
        // Nothing was looked for yet, so nobody knows whether there is anything.
        if listing.left.is_empty() && room > 0 {
            return (items, None);
        }
        let context = format!("uuid:{}", guid());
        listing.since = self.clock.now();
        let mut state = self.lock();
        if state.listings.len() >= MAX_LISTINGS {
            state.listings.pop_first();
        }
        state.listings.insert(context.clone(), listing);
        (items, Some(context))
    }

    fn take_listing(&self, request: &Request, caller: &Caller) -> Result<Listing, Fault> {
        let context =
            request.body.child(namespace::ENUMERATION, "EnumerationContext").map(|element| element.text.trim());
        let context = context.ok_or_else(|| self.against(request, Fault::schema(), "no EnumerationContext"))?;
        let mut state = self.lock();
        state.listings.retain(|_, listing| self.clock.since(listing.since) < LISTING);
        match state.listings.get(context) {
            Some(listing) if listing.owner == caller.user && listing.resource == request.resource => {}
            _ => return Err(Fault::invalid_enumeration()),
        }
        state.listings.remove(context).ok_or_else(Fault::invalid_enumeration)
    }
}
