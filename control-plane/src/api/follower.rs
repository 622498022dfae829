//! What everybody has in common who follows something: a place among the followers, news that wake, and an end when the
//! user may not look any more or the control plane stops.
//!
//! It reads nothing itself: what there is to see is for the services to look up.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::Api;
use crate::access::Caller;
use crate::clock::Now;

/// One follower of one thing, woken by values of `W`.
pub(super) struct Follower<W> {
    api: Api,
    pub(super) caller: Caller,
    wake: watch::Receiver<W>,
    /// Changes of users and tokens.
    access: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl<W: Copy> Follower<W> {
    /// Follows what `wake` tells of. Make it before the first look, so that no change falls between.
    pub(super) fn new(api: &Api, wake: watch::Receiver<W>, caller: Caller) -> Result<Self, Status> {
        let place = api.calls.follower()?;
        Ok(Self { api: api.clone(), caller, wake, access: api.users.subscribe(), _place: place })
    }

    /// Following ends when its user may not begin it any more.
    pub(super) fn check_access(&mut self) -> Result<(), Status> {
        self.access.borrow_and_update();
        if self.api.users.stands(&self.caller, Now::read().wall) {
            return Ok(());
        }
        Err(Status::unauthenticated("the token has expired or was revoked, or the user was disabled"))
    }

    /// What has happened until now, which is about to be looked at.
    pub(super) fn looks(&mut self) -> W {
        *self.wake.borrow_and_update()
    }

    /// Waits until there may be something new, and then for `breath`. `again` says how to go on after a stop.
    pub(super) async fn news(&mut self, breath: Duration, again: &str) -> Result<(), Status> {
        tokio::select! {
            // Each sender lives as long as its receivers, or as the services.
            _ = self.wake.changed() => {
                if !breath.is_zero() {
                    tokio::time::sleep(breath).await;
                }
            }
            _ = self.access.changed() => {}
            () = tokio::time::sleep(EXPIRY_CHECK) => {}
            () = self.api.stop.cancelled() => {
                return Err(Status::unavailable(format!("the control plane is stopping; ask again from {again} on")));
            }
        }
        Ok(())
    }
}

/// How late a follower may notice that its token has expired.
const EXPIRY_CHECK: Duration = Duration::from_secs(15);
