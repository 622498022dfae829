//! Kerberos ([RFC 4121]): where tickets come from.
//!
//! Tickets are asked of a [`TicketSource`]: this crate speaks to no KDC and reads no file. Nothing here shows a ticket or a key.
//!
//! [RFC 4121]: https://www.rfc-editor.org/rfc/rfc4121

mod source;

pub use crate::error::{TicketError, TicketErrorKind};
pub use source::{Ticket, TicketRequest, TicketSource};
