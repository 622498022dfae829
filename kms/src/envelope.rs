//! Values under data keys: AES-256-GCM, bound to their context. No I/O, and nothing of KMS.

use lictor_proto::v1::KmsRecord;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::{Error, sentences};

/// Largest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;
/// Largest wrapped data key: what KMS takes as `CiphertextBlob`.
pub const MAX_WRAPPED: usize = 6144;
/// Length of a data key.
pub(crate) const KEY: usize = 32;
const TAG: usize = 16;

/// A data key in clear.
pub(crate) type DataKey = Zeroizing<[u8; KEY]>;

/// A data key from what KMS answered. Other lengths are none.
pub(crate) fn data_key(bytes: &[u8]) -> Option<DataKey> {
    let mut key = Zeroizing::new([0; KEY]);
    if bytes.len() != KEY {
        return None;
    }
    key.copy_from_slice(bytes);
    Some(key)
}

/// Refuses values that nobody meant, before KMS is asked.
///
/// # Errors
/// For an empty value and one above [`MAX_VALUE`].
pub(crate) fn check_value(value: &[u8]) -> Result<(), Error> {
    match value.len() {
        0 => Err(sentences::value_empty()),
        length if length > MAX_VALUE => Err(sentences::value_large(length)),
        _ => Ok(()),
    }
}

/// Encrypts a value.
pub(crate) fn encrypt(
    key: &DataKey,
    key_arn: String,
    wrapped_key: Vec<u8>,
    context: &Context,
    value: &[u8],
) -> Result<KmsRecord, Error> {
    check_value(value)?;
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut sealed = Zeroizing::new(Vec::with_capacity(value.len() + TAG));
    sealed.extend_from_slice(value);
    aead(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.associated_data()),
            &mut *sealed,
        )
        .map_err(|_| sentences::value_large(value.len()))?;
    Ok(KmsRecord {
        key_arn,
        wrapped_key,
        nonce: nonce.to_vec(),
        ciphertext: std::mem::take(&mut *sealed),
        context: context.pairs().collect(),
    })
}

/// Looks at a record before anybody is asked about it.
///
/// # Errors
/// When it cannot be one, or belongs to another context.
pub(crate) fn check(record: &KmsRecord, context: &Context) -> Result<(), Error> {
    if record.nonce.len() != NONCE_LEN {
        return Err(sentences::record_malformed(format!("its nonce has {} bytes", record.nonce.len())));
    }
    if record.wrapped_key.is_empty() || record.wrapped_key.len() > MAX_WRAPPED {
        return Err(sentences::record_malformed(format!("its wrapped key has {} bytes", record.wrapped_key.len())));
    }
    if record.ciphertext.len() <= TAG || record.ciphertext.len() > MAX_VALUE + TAG {
        return Err(sentences::record_malformed(format!("its ciphertext has {} bytes", record.ciphertext.len())));
    }
    if !context.is(&record.context) {
        return Err(sentences::context_differs(context));
    }
    Ok(())
}

/// Decrypts a value with its data key: for those who have it already, and for checks of what this makes of any bytes.
///
/// # Errors
/// When the record cannot be one, belongs to another context, or is not what was encrypted under this key.
pub fn decrypt(key: &[u8; 32], record: &KmsRecord, context: &Context) -> Result<Zeroizing<Vec<u8>>, Error> {
    check(record, context)?;
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&record.nonce);
    let mut value = Zeroizing::new(record.ciphertext.clone());
    let length = aead(&Zeroizing::new(*key))?
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context.associated_data()), &mut value)
        .map_err(|_| sentences::tampered())?
        .len();
    value.truncate(length);
    Ok(value)
}

fn aead(key: &DataKey) -> Result<LessSafeKey, Error> {
    let key = UnboundKey::new(&AES_256_GCM, &**key).map_err(|_| sentences::tampered())?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(value: &[u8], context: &Context) -> KmsRecord {
        encrypt(&Zeroizing::new([7; KEY]), "arn".to_owned(), vec![1, 2, 3], context, value).unwrap()
    }

    #[test]
    fn sizes_are_bounded_on_both_sides() {
        assert_eq!(check_value(&[]).unwrap_err().code(), "kms.value_empty");
        assert_eq!(check_value(&vec![0; MAX_VALUE + 1]).unwrap_err().code(), "kms.value_too_large");
        let context = Context::new("", "web", 1);
        let largest = vec![9; MAX_VALUE];
        assert_eq!(*decrypt(&[7; KEY], &made(&largest, &context), &context).unwrap(), largest);
        let mut record = made(b"x", &context);
        record.ciphertext = vec![0; MAX_VALUE + TAG + 1];
        assert_eq!(decrypt(&[7; KEY], &record, &context).unwrap_err().code(), "kms.record_malformed");
        let mut record = made(b"x", &context);
        record.wrapped_key.clear();
        assert_eq!(decrypt(&[7; KEY], &record, &context).unwrap_err().code(), "kms.record_malformed");
    }

    #[test]
    fn another_context_is_refused_with_what_was_expected() {
        let record = made(b"value", &Context::new("platform", "web", 1));
        let error = decrypt(&[7; KEY], &record, &Context::new("platform", "web", 2)).unwrap_err();
        assert_eq!(error.code(), "kms.context_differs");
        assert!(error.cause().contains("lictor:version=2"), "{}", error.cause());
    }

    proptest! {
        #[test]
        fn what_was_encrypted_comes_back(value in prop::collection::vec(any::<u8>(), 1..2000), version: u64) {
            let context = Context::new("platform/production", "web", version);
            let record = made(&value, &context);
            prop_assert_eq!(record.ciphertext.len(), value.len() + TAG);
            prop_assert_eq!(&*decrypt(&[7; KEY], &record, &context).unwrap(), &value);
        }

        #[test]
        fn one_changed_bit_anywhere_is_seen(value in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0..8_u8) {
            let context = Context::new("", "web", 1);
            let mut record = made(&value, &context);
            let index = at.index(record.ciphertext.len() + NONCE_LEN);
            match index.checked_sub(NONCE_LEN) {
                None => record.nonce[index] ^= 1_u8 << bit,
                Some(index) => record.ciphertext[index] ^= 1_u8 << bit,
            }
            prop_assert_eq!(decrypt(&[7; KEY], &record, &context).unwrap_err().code(), "kms.tampered");
        }

        #[test]
        fn no_bytes_break_it(nonce in prop::collection::vec(any::<u8>(), 0..20), ciphertext in prop::collection::vec(any::<u8>(), 0..99)) {
            let context = Context::new("", "web", 1);
            let record = KmsRecord { nonce, ciphertext, ..made(b"x", &context) };
            prop_assert!(decrypt(&[7; KEY], &record, &context).is_err());
        }
    }
}
