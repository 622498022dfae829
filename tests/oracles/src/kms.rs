//! What control planes say about AWS KMS: ways to keys, and records.

use lictor_kms::{Access, Context, Kind, envelope};
use lictor_proto::v1::{AwsAssumeRole, KmsAccess, KmsAccessKey, KmsMaterial, kms_access};
use prost::Message as _;

use crate::fields;

/// Any bytes as a message with a way and a record, and as texts of a way.
///
/// - A way that is taken has a key and a region that agree, and is taken again as the same; one that is refused is so before anything
///   is asked. Neither shows the secret access key.
/// - Nothing opens that nobody sealed.
pub fn kms_access(data: &[u8]) {
    if let Ok(material) = KmsMaterial::decode(data) {
        if let Some(access) = material.access {
            way(access);
        }
        if let Some(record) = material.record {
            assert!(
                envelope::decrypt(&[7; 32], &record, &Context::new("", "web", 1)).is_err(),
                "opened what nobody sealed"
            );
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let [key, region, endpoint, role_arn, external_id, id] = fields(text.as_bytes()).map(String::from_utf8_lossy);
    let with = |credentials| KmsAccess {
        manager: "corp".to_owned(),
        key: key.to_string(),
        region: region.to_string(),
        endpoint: endpoint.to_string(),
        sts_endpoint: endpoint.to_string(),
        credentials: Some(credentials),
    };
    let (role_arn, external_id) = (role_arn.to_string(), external_id.to_string());
    way(with(kms_access::Credentials::AssumeRole(AwsAssumeRole { role_arn, external_id, duration: None })));
    let secret_access_key = MARKER.to_owned();
    way(with(kms_access::Credentials::AccessKey(KmsAccessKey { access_key_id: id.to_string(), secret_access_key })));
}

fn way(access: KmsAccess) {
    let shown = match Access::parse(access.clone()) {
        Ok(parsed) => {
            let key = parsed.key();
            assert_eq!(key.as_str(), access.key);
            assert!(key.region().is_none_or(|region| region == parsed.region()));
            assert!(!parsed.region().as_str().is_empty());
            let endpoint = access.endpoint.trim().to_lowercase();
            assert!(endpoint.is_empty() || endpoint.starts_with("http"), "{endpoint}");
            let again = Access::parse(access).map(|again| again.digest());
            assert_eq!(again.ok(), Some(parsed.digest()));
            format!("{parsed:?}")
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Settings);
            assert!(error.cause().len() < 10_000);
            format!("{error:?} {} {}", error.cause(), error.remedy())
        }
    };
    assert!(!shown.contains(MARKER), "the secret access key is shown");
}

/// What must not be shown.
const MARKER: &str = "~marker-of-the-oracle~";
