//! Message protection of one connection, whichever mechanism it was set up with.

use super::{kerberos, ntlm};

/// The keys of one connection, both directions.
pub(crate) enum Protection {
    Ntlm(Box<ntlm::Sealing>),
    Kerberos(Box<kerberos::Sealing>),
}

/// A protected message is not what it says. The context is of no use after that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAuthentic {
    #[error("the signature of a sealed message is wrong")]
    Signature,
    #[error("a sealed message comes out of sequence")]
    OutOfSequence,
    #[error("{0}")]
    Malformed(&'static str),
}

impl Protection {
    /// The length of what stands before the sealed data.
    pub(crate) fn header_length(&self) -> usize {
        match self {
            Self::Ntlm(_) => ntlm::SIGNATURE_LENGTH,
            Self::Kerberos(sealing) => sealing.overhead(),
        }
    }

    /// Opens a message.
    pub(crate) fn unseal(&mut self, header: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        match self {
            Self::Ntlm(sealing) => {
                let mut message = sealed.to_vec();
                sealing.unseal(header, &mut message)?;
                Ok(message)
            }
            Self::Kerberos(sealing) => sealing.unseal(header, sealed),
        }
    }

    /// Seals a message: header and sealed data.
    pub(crate) fn seal(&mut self, mut message: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), NotAuthentic> {
        match self {
            Self::Ntlm(sealing) => Ok((sealing.seal(&mut message).to_vec(), message)),
            Self::Kerberos(sealing) => sealing.seal(&message),
        }
    }

    /// Checks SPNEGO's mechListMIC over the client's list of mechanisms.
    pub(crate) fn verify_mechanism_list(&mut self, mic: &[u8], list: &[u8]) -> Result<(), NotAuthentic> {
        match self {
            Self::Ntlm(sealing) => sealing.verify_mechanism_list(mic, list),
            Self::Kerberos(sealing) => sealing.verify_mechanism_list(mic, list),
        }
    }

    /// The host's own mechListMIC.
    pub(crate) fn sign_mechanism_list(&mut self, list: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        match self {
            Self::Ntlm(sealing) => Ok(sealing.sign_mechanism_list(list).to_vec()),
            Self::Kerberos(sealing) => sealing.sign_mechanism_list(list),
        }
    }
}
