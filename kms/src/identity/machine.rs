//! What the machine is to AWS: environment variables, web identity, container credentials, instance metadata, in this order.
//!
//! That is the order of the AWS SDKs without shared profile files, SSO and processes, which belong to people's machines. The first
//! source that is set up counts: when it fails, none after it is asked. Instance metadata is version 2 alone.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::client::error::ImdsError;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{PROVIDER, with_web_identity};
use crate::access::Access;
use crate::client::Clients;
use crate::error::classify::chain;
use crate::error::{Error, sentences};

/// Where environment variables are looked up.
#[derive(Clone, Default)]
pub enum Environment {
    /// Those of the process.
    #[default]
    Process,
    /// These, for programs that take secrets out of the environment when they start. Container credentials are still looked up in the
    /// process, by the SDK.
    Given(BTreeMap<String, Zeroizing<String>>),
}

impl Environment {
    fn get(&self, name: &str) -> Option<Zeroizing<String>> {
        let value = match self {
            Self::Process => std::env::var(name).ok().map(Zeroizing::new),
            Self::Given(variables) => variables.get(name).cloned(),
        };
        // Empty is as good as unset, as for the SDKs.
        value.filter(|value| !value.trim().is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("Process"),
            Self::Given(variables) => f.debug_set().entries(variables.keys()).finish(),
        }
    }
}

/// The machine's credentials, and where they come from.
pub(super) async fn find(
    clients: &Clients,
    environment: &Environment,
    access: &Access,
    session_name: &str,
) -> Result<(Keys, String), Error> {
    let mut tried = Vec::new();
    if let Some(keys) = of_environment(environment)? {
        return Ok((keys, "environment variables".to_owned()));
    }
    tried.push("environment variables: `AWS_ACCESS_KEY_ID` is not set".to_owned());

    if let Some(file) = environment.get(TOKEN_FILE) {
        let Some(role) = environment.get(ROLE) else {
            return Err(sentences::machine(
                WEB_IDENTITY,
                "`AWS_ROLE_ARN` is not set, `AWS_WEB_IDENTITY_TOKEN_FILE` is",
            ));
        };
        let token = read(Path::new(file.as_str())).await.map_err(|why| sentences::machine(WEB_IDENTITY, &why))?;
        let name = environment.get(SESSION_NAME);
        let name = name.as_ref().map_or(session_name, |name| name.as_str());
        let sts = clients.sts(access, None);
        let keys = with_web_identity(&sts, access, &role, name, token.trim(), None).await?;
        return Ok((keys, format!("the web identity of {}", role.as_str())));
    }
    tried.push("web identity: `AWS_WEB_IDENTITY_TOKEN_FILE` is not set".to_owned());

    let config = ProviderConfig::without_region().with_http_client(clients.direct());
    if environment.get(CONTAINER_RELATIVE).is_some() || environment.get(CONTAINER_FULL).is_some() {
        let provider = EcsCredentialsProvider::builder().configure(&config).build();
        let keys = provider.provide_credentials().await.map_err(|error| {
            // What the endpoint answers is a ProviderError, whatever it is; what did not come to an answer is another.
            let passing = matches!(error, CredentialsError::Unhandled(_) | CredentialsError::ProviderTimedOut(_));
            sentences::machine(CONTAINER, &chain(&error)).passing_if(passing)
        })?;
        return Ok((keys, "container credentials".to_owned()));
    }
    tried.push("container credentials: `AWS_CONTAINER_CREDENTIALS_FULL_URI` is not set".to_owned());

    if environment.get(IMDS_OFF).is_some_and(|off| off.eq_ignore_ascii_case("true")) {
        tried.push("instance metadata: switched off by `AWS_EC2_METADATA_DISABLED`".to_owned());
        return Err(sentences::no_credentials(&tried));
    }
    let keys = of_instance(&config, environment, &tried).await?;
    Ok((keys, "instance metadata".to_owned()))
}

fn of_environment(environment: &Environment) -> Result<Option<Keys>, Error> {
    let from = "environment variables";
    match (environment.get(KEY_ID), environment.get(SECRET)) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let token = environment.get(SESSION_TOKEN).map(|token| token.trim().to_owned());
            Ok(Some(Keys::new(id.trim(), secret.trim(), token, None, PROVIDER)))
        }
        (Some(_), None) => Err(sentences::machine(from, "`AWS_ACCESS_KEY_ID` is set, `AWS_SECRET_ACCESS_KEY` is not")),
        (None, Some(_)) => Err(sentences::machine(from, "`AWS_SECRET_ACCESS_KEY` is set, `AWS_ACCESS_KEY_ID` is not")),
    }
}

async fn of_instance(config: &ProviderConfig, environment: &Environment, tried: &[String]) -> Result<Keys, Error> {
    let six = environment.get(IMDS_MODE).is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let usual = if six { IMDS_SIX } else { IMDS };
    let endpoint = environment.get(IMDS_ENDPOINT).map_or_else(|| usual.to_owned(), |endpoint| endpoint.to_string());
    // Given here, so that no profile file is looked for.
    let client = aws_config::imds::Client::builder()
        .configure(config)
        .max_attempts(IMDS_ATTEMPTS)
        .connect_timeout(IMDS_CONNECT)
        .read_timeout(IMDS_READ)
        .endpoint(&endpoint)
        .map_err(|_| sentences::machine("instance metadata", "`AWS_EC2_METADATA_SERVICE_ENDPOINT` is no URL"))?
        .build();
    // Asked for here, where it is still told why there is none.
    let failed =
        |error: &ImdsError| sentences::imds(&imds_words(error, &endpoint), tried).passing_if(imds_may_pass(error));
    let role = client.get(IMDS_ROLE).await.map_err(|error| failed(&error))?;
    let role = role.as_ref().trim().to_owned();
    let provider = ImdsCredentialsProvider::builder().configure(config).imds_client(client).profile(role).build();
    provider.provide_credentials().await.map_err(|error| {
        let why = error.source().and_then(|source| source.downcast_ref::<ImdsError>());
        let nothing = format!("The service at {endpoint} gives no credentials for the role of the instance");
        why.map_or_else(|| sentences::imds(&nothing, tried), failed)
    })
}

/// Whether the metadata service may answer another thing in a moment. Where there is none it is silent as well.
fn imds_may_pass(error: &ImdsError) -> bool {
    match error {
        ImdsError::FailedToLoadToken(why) => why.is_dispatch_failure(),
        ImdsError::ErrorResponse(answer) => answer.response().status().is_server_error(),
        ImdsError::IoError(_) => true,
        _ => false,
    }
}

/// In our words: its own hold the whole answer.
fn imds_words(error: &ImdsError, endpoint: &str) -> String {
    match error {
        ImdsError::FailedToLoadToken(why) if why.is_dispatch_failure() => {
            format!("The service at {endpoint} does not answer the request for a token")
        }
        ImdsError::FailedToLoadToken(_) => format!("The service at {endpoint} gives no token"),
        ImdsError::ErrorResponse(answer) if answer.response().status().as_u16() == 404 => {
            format!("The service at {endpoint} knows no role of the instance")
        }
        ImdsError::ErrorResponse(answer) => {
            format!("The service at {endpoint} answers HTTP status {}", answer.response().status().as_u16())
        }
        ImdsError::IoError(_) => format!("The service at {endpoint} does not answer in time"),
        _ => format!("The service at {endpoint} gives no usable answer"),
    }
}

/// Reads a token, however large the file says it is.
async fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let file =
        tokio::fs::File::open(path).await.map_err(|why| format!("The token file {shown} cannot be opened: {why}"))?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN_FILE + 1)
        .read_to_string(&mut text)
        .await
        .map_err(|why| format!("The token file {shown} cannot be read: {why}"))?;
    if text.trim().is_empty() || text.len() as u64 > MAX_TOKEN_FILE {
        return Err(format!("The token file {shown} has {} bytes", text.len()));
    }
    Ok(text)
}

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE: &str = "AWS_ROLE_ARN";
const SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
const CONTAINER_RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const CONTAINER_FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const IMDS_OFF: &str = "AWS_EC2_METADATA_DISABLED";
const IMDS_MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
const IMDS_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const IMDS: &str = "http://169.254.169.254";
const IMDS_ROLE: &str = "/latest/meta-data/iam/security-credentials/";
const IMDS_SIX: &str = "http://[fd00:ec2::254]";
/// On a machine outside EC2 nobody answers: few attempts are enough, and each has more time than a busy machine takes.
const IMDS_ATTEMPTS: u32 = 3;
const IMDS_CONNECT: Duration = Duration::from_secs(2);
const IMDS_READ: Duration = Duration::from_secs(5);
const WEB_IDENTITY: &str = "web identity";
const CONTAINER: &str = "the container credentials endpoint";
const MAX_TOKEN_FILE: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> Environment {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), Zeroizing::new((*value).to_owned()));
        Environment::Given(variables.iter().map(own).collect())
    }

    async fn found(environment: Environment) -> Result<(Keys, String), Error> {
        find(&Clients::new(&[]), &environment, &crate::ladder::tests::machine(), "lictor-test").await
    }

    #[tokio::test]
    async fn half_an_access_key_is_told_and_nothing_else_asked() {
        for (set, word) in [(KEY_ID, "AWS_SECRET_ACCESS_KEY` is not"), (SECRET, "AWS_ACCESS_KEY_ID` is not")] {
            let error = found(given(&[(set, "AKIAIOSFODNN7EXAMPLE")])).await.unwrap_err();
            assert_eq!(error.code(), "kms.machine_credentials");
            assert!(error.cause().contains(word) && !error.cause().contains("EXAMPLE"), "{}", error.cause());
        }
    }

    #[tokio::test]
    async fn without_any_source_all_that_were_tried_are_named() {
        let error = found(given(&[(IMDS_OFF, "true"), (KEY_ID, " ")])).await.unwrap_err();
        assert_eq!(error.code(), "kms.no_credentials");
        for word in ["environment variables", "web identity", "container", "switched off"] {
            assert!(error.cause().contains(word), "{}", error.cause());
        }
    }

    #[tokio::test]
    async fn a_token_file_that_is_not_there_ends_the_search() {
        let error =
            found(given(&[(TOKEN_FILE, "/nonexistent/token"), (ROLE, "arn:aws:iam::111122223333:role/a")])).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), "kms.machine_credentials");
        assert!(error.cause().contains("/nonexistent/token"));
    }

    #[test]
    fn debug_shows_names_alone() {
        assert_eq!(format!("{:?}", given(&[(SECRET, "Marker-1")])), "{\"AWS_SECRET_ACCESS_KEY\"}");
    }
}
