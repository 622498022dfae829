//! The link by polls: one call after the other, each a short session of the same protocol.
//!
//! A poll hands over everything there is to say and takes what the control plane has. One at a time: an answer that was
//! lost is found out by the Hello of the next one. It must never begin a poll before the engine has answered for the
//! assignments of the one before. Called by the link.

use std::time::Duration;

use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::{PollRequest, PollResponse, server_event};
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use super::{Closed, Link, LinkError, session_error};
use crate::enrol::{self, EnrolError};

/// How one poll ended.
enum Polled {
    /// Answered; true: with something else than a receipt.
    Answered(bool),
    /// The session is over.
    Closed(Closed),
}

impl Link {
    /// Polls over one connection until it breaks, a stream is to be tried, or there is nothing left to do.
    pub(super) async fn polls(&mut self, channel: Channel) -> Result<Closed, LinkError> {
        let mut client = AgentServiceClient::new(channel.clone())
            .max_decoding_message_size(lictor_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(lictor_proto::MAX_REPORT_BYTES);
        let mut renew_at = self.renewal_instant();
        loop {
            if !self.engine_answers().await {
                return Ok(Closed::Finished);
            }
            if self.protocol.is_flushed() {
                return Ok(Closed::Finished);
            }
            if self.choice.next_trial().is_some_and(|trial| std::time::Instant::now() >= trial) {
                return Ok(Closed::Again { soon: true });
            }
            if Instant::now() >= renew_at
                && let Some(identity) = self.identity.clone()
            {
                let renewing = enrol::renew(channel.clone(), &identity);
                let Some(renewed) = self.alongside(renewing).await else { return Ok(Closed::Finished) };
                renew_at = self.renewed(renewed).await?;
                if self.enrol_again {
                    return Ok(Closed::Again { soon: true });
                }
            }
            let begun = Instant::now();
            match self.poll(&mut client).await? {
                Polled::Closed(closed) => return Ok(closed),
                Polled::Answered(news) => {
                    self.backoff.was_useful(super::transport::USEFUL);
                    let least = if news { Duration::ZERO } else { LEAST_INTERVAL };
                    // A control plane that answers at once and says nothing is not to be hammered.
                    let rest = sleep((begun + least).saturating_duration_since(Instant::now()));
                    if self.alongside(rest).await.is_none() {
                        return Ok(Closed::Finished);
                    }
                }
            }
        }
    }

    async fn poll(&mut self, client: &mut AgentServiceClient<Channel>) -> Result<Polled, LinkError> {
        self.protocol.polling(std::time::Instant::now());
        let (request, wait) = self.request().await;
        let call = timeout(wait + ANSWER_WAIT, client.poll(request));
        let answered = self.alongside(call).await;
        let ended = match answered {
            None => Ok(Polled::Closed(Closed::Finished)),
            Some(Err(_)) => {
                self.pace.cut(wait);
                let message = "no answer in time".into();
                Err(EnrolError::Call { call: "Poll", code: tonic::Code::DeadlineExceeded, message }.into())
            }
            Some(Ok(Err(status))) => {
                self.pace.cut(wait);
                Err(session_error("Poll", &status).into())
            }
            Some(Ok(Ok(response))) => {
                self.pace.answered(wait);
                self.take(response.into_inner()).await
            }
        };
        self.protocol.disconnected(std::time::Instant::now());
        ended
    }

    /// Everything there is to say that one message carries, and how long to wait for news.
    async fn request(&mut self) -> (PollRequest, Duration) {
        let mut events = Vec::new();
        let mut bytes = 0;
        while bytes < REQUEST_BYTES {
            let Some(event) = self.next_outbound().await else { break };
            bytes += event.encoded_len();
            events.push(event);
        }
        // The first is to find out at once whether it works; after a full one, more waits to be sent.
        let at_once = !self.metrics.is_connected() || bytes >= REQUEST_BYTES;
        // While no credit was granted, the end of that must not wait long either.
        let busy = self.protocol.is_busy() || self.protocol.is_closed_by_itself();
        let wait = if at_once { Duration::ZERO } else { self.pace.wait(busy) };
        (PollRequest { events, wait: prost_types::Duration::try_from(wait).ok() }, wait)
    }

    async fn take(&mut self, response: PollResponse) -> Result<Polled, LinkError> {
        let mut news = false;
        for event in response.events {
            news |= !matches!(
                event.event,
                Some(server_event::Event::Welcome(_) | server_event::Event::HeartbeatAck(_)) | None
            );
            let was_open = self.protocol.is_open();
            if let Err(end) = self.protocol.server(event, std::time::Instant::now()) {
                return self.ended(end).map(Polled::Closed);
            }
            if !was_open && self.protocol.is_open() && !self.metrics.is_connected() {
                self.welcomed("poll").await?;
            }
        }
        if !self.protocol.is_open() {
            self.metrics.link_failed();
            tracing::warn!("The control plane answered a poll without a Welcome");
            return Ok(Polled::Closed(Closed::Again { soon: true }));
        }
        self.heed_version();
        self.polled = Some(Instant::now());
        Ok(Polled::Answered(news))
    }
}

/// For an answer, beyond the wait that was asked for.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Between the beginnings of two polls that brought nothing.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
/// Behind the event that passes this, the rest waits for the next poll; the largest event still fits the message.
const REQUEST_BYTES: usize = 1024 * 1024;
