//! Message protection by RFC 4121 wrap tokens, in the one shape that Windows' `EncryptMessage` gives them.
//!
//! Known, from [MS-KILE] 3.4.5.4.1: RRC is 28 for AES with SHA-1, so that all but the plaintext's own ciphertext stands in front: 16
//! bytes of header, the 28 rotated ones (encrypted copy of the header, 12 of checksum) and the confounder's 16, together 60. Known
//! from clients that work against Windows: EC is 0, ciphertext and plaintext are equally long. For AES with SHA-2 the same rule gives
//! an RRC of 32 and 40 (headers of 64 and 72); that Windows does so is an assumption, it has these types only since Server 2025.
//!
//! Not known: what Windows does about the numbers of a client's messages. A client that asks for replay or sequence detection is
//! held to them here. What Windows numbers its own by is a question of [`Numbering`].
//!
//! [MS-KILE]: https://learn.microsoft.com/openspecs/windows_protocols/ms-kile/e94b3acd-8415-4d0d-9786-749d0c39d550

use krb5::initiator::{GSS_C_REPLAY_FLAG, GSS_C_SEQUENCE_FLAG};
use krb5::token::{ContextKey, HEADER_LEN, PerMessageTokens};
use krb5::{KerberosContext, KerberosError};

use crate::authentication::protection::NotAuthentic;
use crate::options::Numbering;

/// The confounder of every AES type.
const CONFOUNDER: usize = 16;

/// The keys and numbers of one connection, from the host's side.
pub(crate) struct Sealing {
    tokens: PerMessageTokens<ContextKey>,
    /// The length of everything that is not the message.
    overhead: usize,
    /// The number that the client's next token must have, where it must have one.
    incoming: Option<u64>,
    outgoing: u64,
    numbering: Numbering,
}

impl Sealing {
    pub(crate) fn new(context: &KerberosContext, numbering: Numbering) -> Result<Self, KerberosError> {
        let tokens = context.per_message_tokens()?;
        let empty = tokens.emit_wrap(0, b"").map_err(|error| KerberosError::ParseError(error.to_string()))?;
        let numbered = context.gss_flags & (GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG) != 0;
        Ok(Self {
            tokens,
            overhead: empty.len(),
            incoming: numbered.then_some(context.initiator_seq.into()),
            outgoing: context.acceptor_seq.into(),
            numbering,
        })
    }

    pub(crate) fn overhead(&self) -> usize {
        self.overhead
    }

    /// Opens a sealed message.
    pub(crate) fn unseal(&mut self, header: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let fields = header.get(..HEADER_LEN).ok_or(NotAuthentic::Malformed("the header is cut"))?;
        if header.len() != self.overhead {
            return Err(NotAuthentic::Malformed("the header does not have the length of the encryption type"));
        }
        // EC, then RRC.
        if fields[4..6] != [0, 0] || fields[6..8] != self.rotation().to_be_bytes() {
            return Err(NotAuthentic::Malformed("the token is not rotated so that it can be decrypted in place"));
        }
        let verified = self.tokens.unwrap(&[header, sealed].concat()).map_err(|_| NotAuthentic::Signature)?;
        self.arrived(verified.seq)?;
        Ok(verified.message)
    }

    /// Seals a message: header and ciphertext.
    pub(crate) fn seal(&mut self, message: &[u8]) -> Result<(Vec<u8>, Vec<u8>), NotAuthentic> {
        let number = self.next();
        let mut token = self
            .tokens
            .emit_wrap_full(number, message, 0, self.rotation(), None)
            .map_err(|_| NotAuthentic::Malformed("the message cannot be sealed"))?;
        let sealed = token.split_off(self.overhead);
        Ok((token, sealed))
    }

    /// Checks SPNEGO's mechListMIC.
    pub(crate) fn verify_mechanism_list(&mut self, mic: &[u8], list: &[u8]) -> Result<(), NotAuthentic> {
        let verified = self.tokens.verify_mic(mic, list).map_err(|_| NotAuthentic::Signature)?;
        self.arrived(verified.seq)
    }

    /// The host's own mechListMIC.
    pub(crate) fn sign_mechanism_list(&mut self, list: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let number = self.next();
        self.tokens.emit_mic(number, list).map_err(|_| NotAuthentic::Malformed("the list cannot be signed"))
    }

    fn rotation(&self) -> u16 {
        // 72 is the largest.
        u16::try_from(self.overhead - HEADER_LEN - CONFOUNDER).unwrap_or(0)
    }

    fn arrived(&mut self, number: u64) -> Result<(), NotAuthentic> {
        match &mut self.incoming {
            Some(next) if *next != number => Err(NotAuthentic::OutOfSequence),
            Some(next) => {
                *next = next.wrapping_add(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn next(&mut self) -> u64 {
        let number = self.outgoing;
        if self.numbering == Numbering::Counted {
            self.outgoing = number.wrapping_add(1);
        }
        number
    }
}
