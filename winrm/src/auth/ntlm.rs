//! NTLM ([MS-NLMP], always NTLMv2 with MIC), raw or inside SPNEGO ([RFC 4178]), by way of the `sspi` crate.
//!
//! What `sspi` keeps of the credential is given up as soon as the last token is made; its copies are zeroed when dropped.
//! Transient copies inside the crate (UTF-16 text, hash input) are beyond our reach. At level `debug` it logs plaintext
//! messages: subscribers must cap [`QUIET_TARGETS`].
//!
//! [MS-NLMP]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-nlmp/
//! [RFC 4178]: https://www.rfc-editor.org/rfc/rfc4178

use std::fmt;
use std::ops::Range;

use sspi::ntlm::{NTLM_HASH_PREFIX, NtlmConfig};
use sspi::{
    AuthIdentity, AuthIdentityBuffers, BufferType, ClientRequestFlags, CredentialsBuffers, DataRepresentation,
    EncryptionFlags, NegotiateConfig, NegotiatedProtocol, Ntlm, SecurityBuffer, SecurityBufferRef, SecurityStatus,
    Sspi, SspiImpl, Username,
};
use zeroize::Zeroizing;

use super::{ContextError, SecurityContext};
use crate::target::{Credential, Secret};

/// Tracing targets that write message texts or tokens at `debug` or `trace`. A binary's subscriber must cap them at `warn`.
pub const QUIET_TARGETS: &[&str] = &["sspi"];

/// An NTLM security context.
pub struct NtlmContext {
    state: State,
    channel_bindings: Option<Vec<u8>>,
    tokens: u8,
}

enum State {
    /// Tokens are exchanged; the credential is needed.
    Raw(Box<Ntlm>, Option<AuthIdentityBuffers>),
    /// The same inside SPNEGO.
    Spnego(Box<sspi::Negotiate>, Option<CredentialsBuffers>),
    /// Messages are sealed; the credential is gone.
    Established(Box<Ntlm>),
    /// Something failed.
    Dead,
}

impl NtlmContext {
    /// NTLM tokens as they are.
    ///
    /// # Errors
    /// [`ContextError::Credential`] when NTLM cannot carry the credential.
    pub fn raw(credential: &Credential, channel_bindings: Option<&[u8]>) -> Result<Self, ContextError> {
        let ntlm = Ntlm::with_config(NtlmConfig::default());
        Ok(Self::new(State::Raw(Box::new(ntlm), Some(identity(credential)?)), channel_bindings))
    }

    /// NTLM inside SPNEGO, with no other mechanism offered.
    ///
    /// # Errors
    /// [`ContextError::Credential`] when NTLM cannot carry the credential.
    pub fn spnego(credential: &Credential, channel_bindings: Option<&[u8]>) -> Result<Self, ContextError> {
        let packages = Some("ntlm,!kerberos".to_owned());
        // No workstation name: it is optional, and tells the host more about us than it needs.
        let config = NegotiateConfig::new(Box::new(NtlmConfig::default()), packages, String::new());
        let negotiate = sspi::Negotiate::new_client(config).map_err(token_error)?;
        let identity = CredentialsBuffers::AuthIdentity(identity(credential)?);
        Ok(Self::new(State::Spnego(Box::new(negotiate), Some(identity)), channel_bindings))
    }

    fn new(state: State, channel_bindings: Option<&[u8]>) -> Self {
        Self { state, channel_bindings: channel_bindings.map(sec_channel_bindings), tokens: 0 }
    }

    fn established(&mut self) -> Result<&mut Ntlm, ContextError> {
        match &mut self.state {
            State::Established(ntlm) => Ok(ntlm),
            _ => Err(ContextError::Message("it is not established".into())),
        }
    }
}

impl SecurityContext for NtlmContext {
    fn scheme(&self) -> &'static str {
        "Negotiate"
    }

    fn protocol(&self) -> &'static str {
        "application/HTTP-SPNEGO-session-encrypted"
    }

    fn step(&mut self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError> {
        // A failure leaves the state dead: no token or message passes a context that has failed.
        let state = std::mem::replace(&mut self.state, State::Dead);
        let mut input = vec![SecurityBuffer::new(token.to_vec(), BufferType::Token)];
        if let Some(bindings) = &self.channel_bindings {
            input.push(SecurityBuffer::new(bindings.clone(), BufferType::ChannelBindings));
        }
        let mut output = vec![SecurityBuffer::new(Vec::new(), BufferType::Token)];
        self.state = match state {
            State::Raw(mut ntlm, mut identity) => {
                let status = advance(&mut *ntlm, &mut identity, &mut input, &mut output)?;
                if status == SecurityStatus::Ok { State::Established(ntlm) } else { State::Raw(ntlm, identity) }
            }
            State::Spnego(mut negotiate, mut identity) => {
                let status = advance(&mut *negotiate, &mut identity, &mut input, &mut output)?;
                match negotiate.negotiated_protocol() {
                    // The context of NTLM itself holds no credential; that of SPNEGO does, and ends here.
                    NegotiatedProtocol::Ntlm(ntlm) if status == SecurityStatus::Ok => {
                        State::Established(Box::new(ntlm.clone()))
                    }
                    _ if status == SecurityStatus::Ok => {
                        return Err(ContextError::Token("another mechanism than NTLM was chosen".into()));
                    }
                    _ => State::Spnego(negotiate, identity),
                }
            }
            State::Established(_) | State::Dead => {
                return Err(ContextError::Token("no token was expected".into()));
            }
        };
        let reply = output.into_iter().next().map(|buffer| buffer.buffer).unwrap_or_default();
        self.tokens += u8::from(!reply.is_empty());
        Ok(Zeroizing::new(reply))
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    fn proof_sent(&self) -> bool {
        // NEGOTIATE_MESSAGE is the first token, AUTHENTICATE_MESSAGE the second.
        self.tokens > 1
    }

    fn wrap(&mut self, data: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        let mut header = vec![0; SIGNATURE];
        let mut message = [SecurityBufferRef::token_buf(&mut header), SecurityBufferRef::data_buf(data)];
        let sealed = self.established()?.encrypt_message(EncryptionFlags::empty(), &mut message);
        if let Err(error) = sealed {
            self.state = State::Dead;
            return Err(message_error(error));
        }
        Ok(header)
    }

    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError> {
        let end = sealed.len();
        let Some((signature, data)) = sealed.split_at_mut_checked(SIGNATURE).filter(|_| header == SIGNATURE) else {
            self.state = State::Dead;
            return Err(ContextError::Message("an NTLM signature has 16 bytes".into()));
        };
        let mut message = [SecurityBufferRef::token_buf(signature), SecurityBufferRef::data_buf(data)];
        // A failed decryption has advanced the sequence numbers all the same.
        if let Err(error) = self.established()?.decrypt_message(&mut message) {
            self.state = State::Dead;
            return Err(message_error(error));
        }
        Ok(SIGNATURE..end)
    }
}

impl fmt::Debug for NtlmContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Raw(..) => "negotiating",
            State::Spnego(..) => "negotiating inside SPNEGO",
            State::Established(_) => "established",
            State::Dead => "dead",
        };
        f.debug_struct("NtlmContext").field("state", &state).finish_non_exhaustive()
    }
}

fn advance<T: Sspi + SspiImpl>(
    provider: &mut T,
    credential: &mut T::CredentialsHandle,
    input: &mut [SecurityBuffer],
    output: &mut [SecurityBuffer],
) -> Result<SecurityStatus, ContextError> {
    let mut builder = provider
        .initialize_security_context()
        .with_credentials_handle(credential)
        .with_context_requirements(ClientRequestFlags::INTEGRITY | ClientRequestFlags::CONFIDENTIALITY)
        .with_target_data_representation(DataRepresentation::Native)
        .with_input(input)
        .with_output(output);
    let result = provider
        .initialize_security_context_impl(&mut builder)
        .and_then(|mut generator| generator.resolve_to_result())
        .map_err(token_error)?;
    Ok(result.status)
}

/// `DOMAIN\user`, `user@realm` (which travels whole, with an empty domain) or a bare name.
fn identity(credential: &Credential) -> Result<AuthIdentityBuffers, ContextError> {
    let Some(password) = credential.secret().map(Secret::expose) else {
        return Err(ContextError::Credential("NTLM needs a password, and there is none".into()));
    };
    if password.starts_with(NTLM_HASH_PREFIX) {
        // The crate would take the rest for a hash.
        return Err(ContextError::Credential(format!("NTLM passwords must not begin with {NTLM_HASH_PREFIX:?}")));
    }
    if credential.username().len() > MAX_NAME || password.len() > MAX_NAME {
        return Err(ContextError::Credential("the user name or the password is too long for NTLM".into()));
    }
    let username = Username::parse(credential.username()).map_err(|_| {
        ContextError::Credential("the user name is neither DOMAIN\\user, nor user@realm, nor a bare name".into())
    })?;
    if username.account_name().is_empty() {
        return Err(ContextError::Credential("the user name is empty".into()));
    }
    Ok(AuthIdentity { username, password: password.to_owned().into() }.into())
}

/// SEC_CHANNEL_BINDINGS with nothing but application data, which begins at its end.
fn sec_channel_bindings(application_data: &[u8]) -> Vec<u8> {
    const SIZE: u32 = 32;
    let length = u32::try_from(application_data.len()).unwrap_or(u32::MAX);
    let mut bindings = vec![0; 24];
    bindings.extend_from_slice(&length.to_le_bytes());
    bindings.extend_from_slice(&SIZE.to_le_bytes());
    bindings.extend_from_slice(application_data);
    bindings
}

fn token_error(error: sspi::Error) -> ContextError {
    ContextError::Token(error.description)
}

fn message_error(error: sspi::Error) -> ContextError {
    ContextError::Message(error.description)
}

/// NTLMSSP_MESSAGE_SIGNATURE.
const SIGNATURE: usize = 16;
/// Windows takes 256 characters; NTLM's own fields end at 65,535 bytes of UTF-16.
const MAX_NAME: usize = 4096;

#[cfg(test)]
mod tests;
