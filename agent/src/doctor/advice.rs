//! The one table of what `doctor` finds by itself: codes, causes, remedies. What it finds about Kerberos and hosts is told by
//! the crates that know those.

use lictor_doctor::Finding;
use lictor_proto::v1::Failure;

/// A row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advice {
    /// Stable code.
    pub(super) code: &'static str,
    /// What it may look like.
    pub(super) example: &'static str,
    /// The likely cause.
    pub(super) cause: &'static str,
    /// What to do.
    pub(super) remedy: &'static str,
}

impl Advice {
    /// The row as a finding; `message` says what happened.
    pub(super) fn about(&self, message: impl Into<String>) -> Finding {
        Finding {
            code: self.code.into(),
            message: message.into(),
            cause: self.cause.to_owned(),
            remedy: self.remedy.to_owned(),
            legacy_text: None,
            suspects: Vec::new(),
        }
    }
}

/// One failure of each kind, for documentation.
pub(crate) fn catalogue() -> Vec<Failure> {
    let failure = |row: &Advice| Failure {
        stage: "doctor".into(),
        code: row.code.into(),
        message: row.example.into(),
        cause: row.cause.into(),
        remedy: row.remedy.into(),
        ..Failure::default()
    };
    ALL.iter().map(failure).collect()
}

/// Every row, but for `kerberos.configuration`, which is told by lictor-doctor too.
pub(super) const ALL: &[Advice] = &[
    CONFIGURATION,
    POLICY,
    STATE_UNUSABLE,
    STATE_OPEN,
    STATE_SPACE,
    JOURNAL_DAMAGED,
    IDENTITY,
    NOT_ENROLLED,
    JOIN_TOKEN,
    CERTIFICATE_ENDED,
    CERTIFICATE_DUE,
    CLOCK,
    RESOLVE,
    CONNECT,
    TLS,
    PIN,
    KEYTAB,
    KEYTAB_OLD_KEYS,
    KEYTAB_OPEN,
    CACHE_ENDED,
    OPEN_FILES,
    MEMORY,
    NO_KEY,
    TARGET,
];

pub(super) const CONFIGURATION: Advice = Advice {
    code: "agent.configuration",
    example: "slots: must be a whole number from 1 to 1000",
    cause: "A setting is missing, unknown or out of its range, in the file or in the environment.",
    remedy: "Correct it; docs/agent-settings.md lists every setting. The agent does not start like this.",
};
pub(super) const POLICY: Advice = Advice {
    code: "agent.policy_file",
    example: "the policy file /etc/lictor/policy.toml has 1 mistake(s)",
    cause: "The policy file is missing, or something in it is no rule.",
    remedy: "Correct the file; docs/policy.md lists every rule. An agent that runs keeps its old policy, a new one does not start.",
};
pub(super) const STATE_UNUSABLE: Advice = Advice {
    code: "agent.state_unusable",
    example: "/var/lib/lictor (mode 0700, of user 0) cannot be used by user 1000: Permission denied",
    cause: "The state directory belongs to another user, or the volume under it is read-only or gone.",
    remedy: "Give the user of the agent's process the directory (in Kubernetes: fsGroup, or a volume that can be written), or set state_dir.",
};
pub(super) const STATE_OPEN: Advice = Advice {
    code: "agent.state_open",
    example: "/var/lib/lictor has mode 0755",
    cause: "Others than the agent's user may look into the state directory or read its private keys.",
    remedy: "chmod 0700 on the directory, 0600 on identity.json; the agent narrows the directory itself when it starts.",
};
pub(super) const STATE_SPACE: Advice = Advice {
    code: "agent.state_space",
    example: "3 MiB and 70000 files free",
    cause: "The file system of the state directory is nearly full. Without room the agent takes no new tasks.",
    remedy: "Free space, or give the volume more: journal, results and output that waits for the control plane are kept there.",
};
pub(super) const JOURNAL_DAMAGED: Advice = Advice {
    code: "agent.journal_damaged",
    example: "set aside: journal.redb.damaged-1700000000",
    cause: "A journal could not be read at some start and was set aside; results that waited in it were lost.",
    remedy: "Look whether the disk is sound, then delete the file that was set aside.",
};
pub(super) const IDENTITY: Advice = Advice {
    code: "agent.identity",
    example: "/var/lib/lictor/identity.json does not hold an identity of this program (line 1 is not as expected)",
    cause: "The file with the agent's identity is damaged, cannot be read, or belongs to another program.",
    remedy: "Move identity.json away and start the agent with a join token that is still good; it enrols anew.",
};
pub(super) const NOT_ENROLLED: Advice = Advice {
    code: "agent.not_enrolled",
    example: "there is no identity, and no join token to get one with",
    cause: "The agent has not enrolled yet, or its state directory is a new one.",
    remedy: "Make a join token with `lictor token create` and give it by LICTOR_AGENT_JOIN_TOKEN or join_token_file.",
};
pub(super) const JOIN_TOKEN: Advice = Advice {
    code: "agent.join_token",
    example: "failed to read a join token from /run/secrets/join-token",
    cause: "The file of join_token_file is missing, or holds no join token.",
    remedy: "Make a token with `lictor token create` and write it to the file as it was printed.",
};
pub(super) const CERTIFICATE_ENDED: Advice = Advice {
    code: "agent.certificate_ended",
    example: "it ended 3 days ago",
    cause: "The agent did not run, or could not reach the control plane, for so long that its certificate was not renewed.",
    remedy: "Start it: the control plane renews for a while after the end. After that it enrols anew, which takes a join token.",
};
pub(super) const CERTIFICATE_DUE: Advice = Advice {
    code: "agent.certificate_due",
    example: "its renewal was due 5 h ago",
    cause: "The renewal of the agent's certificate is overdue: no agent runs on this state, or the control plane did not answer.",
    remedy: "Start the agent, or look in its log why the renewal fails.",
};
pub(super) const CLOCK: Advice = Advice {
    code: "agent.clock",
    example: "the certificate was issued 4 h from now",
    cause: "This machine's clock is behind the time at which its certificate was issued, by its own clock.",
    remedy: "Set the clock of the machine (in a pod: of the node). Kerberos and certificates need it within minutes.",
};
pub(super) const RESOLVE: Advice = Advice {
    code: "control_plane.resolve",
    example: "failed to find an address of lictor.corp.example: no such name",
    cause: "The name of the control plane has no address here: it is mistyped, or this machine asks the wrong DNS servers.",
    remedy: "Check control_plane in the settings, and /etc/resolv.conf (in Kubernetes: dnsPolicy and the service's name).",
};
pub(super) const CONNECT: Advice = Advice {
    code: "control_plane.connect",
    example: "failed to connect to the control plane at lictor.corp.example:7443: connection refused",
    cause: "The control plane does not run, listens on another port, or a firewall or network policy is in between.",
    remedy: "Check that the control plane runs and that this machine may reach its port (7443 unless told otherwise), or set proxy.url.",
};
pub(super) const TLS: Advice = Advice {
    code: "control_plane.tls",
    example: "failed to set up TLS with the control plane at lictor.corp.example:7443: unknown issuer",
    cause: "What answers is not the control plane that this agent enrolled with, or something in between ends TLS.",
    remedy: "Let only TCP proxies stand in between; when the control plane has a new authority, move identity.json away and enrol anew.",
};
pub(super) const PIN: Advice = Advice {
    code: "control_plane.pin",
    example: "refused to enrol at lictor.corp.example:7443: none of the certificates presented is the authority that the join token pins",
    cause: "What answers is not the control plane that made the join token, or something in between ends TLS.",
    remedy: "Check control_plane in the settings; make a new join token on the control plane that answers there.",
};
pub(super) const KERBEROS_CONFIGURATION: Advice = Advice {
    code: "kerberos.configuration",
    example: "/etc/krb5.conf, line 7: a value without a name",
    cause: "krb5.conf, or what the settings declare of Kerberos, has mistakes.",
    remedy: "Correct them; docs/krb5-conf.md says what counts.",
};
pub(super) const KEYTAB: Advice = Advice {
    code: "agent.keytab_unusable",
    example: "failed to read the keytab /etc/lictor/svc.keytab: permission denied",
    cause: "A keytab of the settings is missing, cannot be read by the agent's user, or is none.",
    remedy: "Check the path and the rights (a secret volume in Kubernetes: defaultMode and fsGroup), and look with `lictor keytab list`.",
};
pub(super) const KEYTAB_OLD_KEYS: Advice = Advice {
    code: "agent.keytab_old_keys",
    example: "/etc/lictor/svc.keytab: svc-web@CORP.EXAMPLE (kvno 2)",
    cause: "The keytab holds only keys of encryption types that are not used here, such as RC4.",
    remedy: "Make it anew with AES keys: `lictor keytab create`, or ktpass /crypto AES256-SHA1.",
};
pub(super) const KEYTAB_OPEN: Advice = Advice {
    code: "agent.keytab_open",
    example: "it has mode 0644",
    cause: "Everybody on the machine may read the keytab, which is as good as the password.",
    remedy: "chmod 0400, owned by the agent's user (a secret volume in Kubernetes: defaultMode: 0400).",
};
pub(super) const CACHE_ENDED: Advice = Advice {
    code: "agent.cache_ended",
    example: "FILE:/var/run/krb5cc: svc-web@CORP.EXAMPLE, 1 tickets; it ended 3 h ago",
    cause: "The ticket in the cache has ended, and nobody has renewed it.",
    remedy: "Run kinit again, or give the agent a keytab, with which it renews by itself.",
};
pub(super) const OPEN_FILES: Advice = Advice {
    code: "agent.open_files",
    example: "at most 1024 files may be open, and 2096 may be needed",
    cause: "The process may open fewer files than pool and slots may need; then tasks fail with `too many open files`.",
    remedy: "Raise the hard limit (ulimit -Hn, LimitNOFILE), or lower pool.max_sessions.",
};
pub(super) const MEMORY: Advice = Advice {
    code: "agent.memory",
    example: "490 MiB of 512 MiB in use",
    cause: "The control group's memory limit is small for what the agent may hold, or nearly used up.",
    remedy: "Raise the limit of the container; the agent asks for no work above admission.memory_percent of it.",
};
pub(super) const NO_KEY: Advice = Advice {
    code: "agent.nothing_held",
    example: "nothing here proves svc-web@CORP.EXAMPLE",
    cause: "None of the agent's keytabs holds a key of the user, and no cache that it may use a ticket.",
    remedy: "Name a user whose key is in kerberos.keytabs, or leave --user out to look without logging in.",
};
pub(super) const TARGET: Advice = Advice {
    code: "agent.no_host",
    example: "the host name is empty",
    cause: "The host, port or scheme is none.",
    remedy: "Give --host a name or an address, with --port when it is not the usual one.",
};
