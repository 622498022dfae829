//! The body of an answer: whole, or trickling in pieces when the host is slow. The exchange is under way until it has gone out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::clock::Clock;
use crate::conditions::Trickle;
use crate::lines::Busy;

pub(crate) struct AnswerBody {
    left: Bytes,
    pace: Option<Pace>,
    _busy: Busy,
}

struct Pace {
    trickle: Trickle,
    clock: Clock,
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl AnswerBody {
    pub(crate) fn new(left: Bytes, trickle: Option<Trickle>, clock: &Clock, busy: Busy) -> Self {
        let pace = trickle.map(|trickle| Pace { trickle, clock: clock.clone(), wait: pause(clock.clone(), trickle) });
        Self { left, pace, _busy: busy }
    }
}

fn pause(clock: Clock, trickle: Trickle) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { clock.sleep(trickle.every.0).await })
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let mut size = self.left.len();
        if let Some(pace) = &mut self.pace {
            ready!(pace.wait.as_mut().poll(context));
            pace.wait = pause(pace.clock.clone(), pace.trickle);
            size = size.min(pace.trickle.bytes.max(1));
        }
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
