//! How a task's connection settings and its credential's become one complete set.

use lictor_proto::v1::{
    AuthKind, ConnectionSettings, KerberosSettings, MessageEncryption, Scheme, ShellSettings, TaskSpec, task_spec,
};

/// Task over credential over general default, field by field; nothing is left unset.
pub(crate) fn complete(task: Option<ConnectionSettings>, credential: &ConnectionSettings) -> ConnectionSettings {
    let task = task.unwrap_or_default();
    let pick = |own: i32, inherited: i32, default: i32| match (own, inherited) {
        (0, 0) => default,
        (0, inherited) => inherited,
        (own, _) => own,
    };
    let text = |own: String, inherited: &String| if own.is_empty() { inherited.clone() } else { own };
    let scheme = pick(task.scheme, credential.scheme, Scheme::Https.into());
    let default_port = if scheme == i32::from(Scheme::Http) { 5985 } else { 5986 };
    let port = [task.port, credential.port].into_iter().find(|port| *port != 0).unwrap_or(default_port);
    let path = text(task.path, &credential.path);
    let (ca_pem, ca_secret) = one_authority((task.ca_pem, task.ca_secret), (&credential.ca_pem, &credential.ca_secret));
    ConnectionSettings {
        scheme,
        port,
        path: if path.is_empty() { "/wsman".into() } else { path },
        auth: pick(task.auth, credential.auth, AuthKind::Negotiate.into()),
        ca_pem,
        skip_cert_check: Some(task.skip_cert_check.or(credential.skip_cert_check).unwrap_or(false)),
        message_encryption: pick(
            task.message_encryption,
            credential.message_encryption,
            MessageEncryption::Auto.into(),
        ),
        send_channel_bindings: Some(task.send_channel_bindings.or(credential.send_channel_bindings).unwrap_or(true)),
        allow_basic_over_http: Some(task.allow_basic_over_http.or(credential.allow_basic_over_http).unwrap_or(false)),
        kerberos: Some(complete_kerberos(merge_kerberos(task.kerberos, credential.kerberos.as_ref()))),
        ca_secret,
    }
}

/// The host's authority, as text and by name of a secret: whoever says one of them means neither of the inherited.
pub(crate) fn one_authority(own: (String, String), inherited: (&String, &String)) -> (String, String) {
    if own.0.is_empty() && own.1.is_empty() { (inherited.0.clone(), inherited.1.clone()) } else { own }
}

/// One over the other, part by part; what neither sets stays unset.
pub(crate) fn merge_kerberos(
    own: Option<KerberosSettings>,
    inherited: Option<&KerberosSettings>,
) -> Option<KerberosSettings> {
    let (Some(own), Some(inherited)) = (&own, inherited) else { return own.or_else(|| inherited.cloned()) };
    let text = |own: &String, inherited: &String| if own.is_empty() { inherited.clone() } else { own.clone() };
    Some(KerberosSettings {
        realm: text(&own.realm, &inherited.realm),
        spn_service: text(&own.spn_service, &inherited.spn_service),
        spn_host: text(&own.spn_host, &inherited.spn_host),
        delegate: own.delegate.or(inherited.delegate),
        kinit_mode: if own.kinit_mode == 0 { inherited.kinit_mode } else { own.kinit_mode },
        fresh_tickets: own.fresh_tickets.or(inherited.fresh_tickets),
        trace: own.trace.or(inherited.trace),
    })
}

/// The kinit mode stays unset where nobody set it: it follows from the credential's secret.
fn complete_kerberos(settings: Option<KerberosSettings>) -> KerberosSettings {
    let settings = settings.unwrap_or_default();
    KerberosSettings {
        delegate: Some(settings.delegate.unwrap_or(false)),
        fresh_tickets: Some(settings.fresh_tickets.unwrap_or(false)),
        trace: Some(settings.trace.unwrap_or(false)),
        ..settings
    }
}

/// The shell settings of a task that runs in a shell of its own making; nothing for those that only look.
pub(crate) fn shell_settings(spec: &mut TaskSpec) -> Option<&mut ShellSettings> {
    match spec.kind.as_mut()? {
        task_spec::Kind::ConnectionTest(_)
        | task_spec::Kind::Diagnosis(_)
        | task_spec::Kind::Posture(_)
        | task_spec::Kind::SecretManagerTest(_)
        | task_spec::Kind::SealSecret(_) => None,
        task_spec::Kind::Command(command) => Some(command.shell.get_or_insert_default()),
        task_spec::Kind::Script(script) => Some(script.shell.get_or_insert_default()),
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::v1::KinitMode;

    use super::*;

    #[test]
    fn nothing_set_gives_the_general_defaults() {
        let settings = complete(None, &ConnectionSettings::default());
        assert_eq!(settings.scheme(), Scheme::Https);
        assert_eq!(settings.port, 5986);
        assert_eq!(settings.path, "/wsman");
        assert_eq!(settings.auth(), AuthKind::Negotiate);
        assert_eq!(settings.message_encryption(), MessageEncryption::Auto);
        assert_eq!(settings.send_channel_bindings, Some(true));
        assert_eq!((settings.skip_cert_check, settings.allow_basic_over_http), (Some(false), Some(false)));
    }

    #[test]
    fn the_task_overrides_the_credential_field_by_field() {
        let credential = ConnectionSettings {
            scheme: Scheme::Http.into(),
            auth: AuthKind::Ntlm.into(),
            skip_cert_check: Some(true),
            ca_pem: "credential".into(),
            kerberos: Some(KerberosSettings {
                realm: "CORP.EXAMPLE".into(),
                delegate: Some(true),
                kinit_mode: KinitMode::Manual.into(),
                ..KerberosSettings::default()
            }),
            ..ConnectionSettings::default()
        };
        let task = ConnectionSettings {
            port: 55985,
            skip_cert_check: Some(false),
            ca_pem: "task".into(),
            kerberos: Some(KerberosSettings {
                spn_host: "web1.corp.example".into(),
                delegate: Some(false),
                ..KerberosSettings::default()
            }),
            ..ConnectionSettings::default()
        };
        let settings = complete(Some(task), &credential);
        assert_eq!(settings.scheme(), Scheme::Http);
        assert_eq!(settings.port, 55985);
        assert_eq!(settings.auth(), AuthKind::Ntlm);
        assert_eq!(settings.skip_cert_check, Some(false));
        assert_eq!(settings.ca_pem, "task");
        let kerberos = settings.kerberos.unwrap();
        assert_eq!((kerberos.realm.as_str(), kerberos.spn_host.as_str()), ("CORP.EXAMPLE", "web1.corp.example"));
        assert_eq!((kerberos.delegate, kerberos.kinit_mode()), (Some(false), KinitMode::Manual));
        assert_eq!((kerberos.trace, kerberos.fresh_tickets), (Some(false), Some(false)));
        assert_eq!(complete(None, &credential).port, 5985);
    }
}
