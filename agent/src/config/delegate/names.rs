//! The names of a Harness delegate's environment, and what each means here. `docs/migrate-harness.md` shows the same table; a
//! test compares the two.

/// A name, with what it means.
pub(super) struct Name {
    pub(super) name: &'static str,
    /// The same under the name that version 3 of the delegate has for it.
    pub(super) alias: Option<&'static str>,
    pub(super) meaning: Meaning,
}

/// What a name means here.
pub(super) enum Meaning {
    /// It works: as this setting, or as these words say.
    #[cfg_attr(not(test), expect(dead_code, reason = "stands on the page, which a test compares"))]
    Works(&'static str),
    /// It does nothing, for this reason.
    Nothing(&'static str),
}

use Meaning::{Nothing, Works};

const fn works(name: &'static str, text: &'static str) -> Name {
    Name { name, alias: None, meaning: Works(text) }
}

const fn aliased(name: &'static str, alias: &'static str, meaning: Meaning) -> Name {
    Name { name, alias: Some(alias), meaning }
}

const fn nothing(name: &'static str, reason: &'static str) -> Name {
    Name { name, alias: None, meaning: Nothing(reason) }
}

/// All of them, in the order of the page.
pub(super) const NAMES: &[Name] = &[
    aliased(
        "MANAGER_HOST_AND_PORT",
        "HARNESS_MANAGER_HOST_AND_PORT",
        Works("`control_plane`. A path is cut off; the port is 7443 unless given"),
    ),
    aliased(
        "DELEGATE_TOKEN",
        "HARNESS_DELEGATE_TOKEN",
        Works(
            "the join token, as `LICTOR_AGENT_JOIN_TOKEN`. Make one with `lictor token create --max-uses 0`; a token of Harness is refused",
        ),
    ),
    aliased(
        "DELEGATE_NAME",
        "HARNESS_DELEGATE_NAME",
        Works(
            "`name`, and a tag that tasks may select by. In Kubernetes the pod's host name is put behind it, because replicas share it",
        ),
    ),
    aliased("DELEGATE_TAGS", "HARNESS_DELEGATE_TAGS", Works("`tags`")),
    works("DELEGATE_DESCRIPTION", "`description`"),
    works("DELEGATE_ORG_IDENTIFIER", "`scope`: the organisation, as its first part"),
    works("DELEGATE_PROJECT_IDENTIFIER", "`scope`: the project, as its second part"),
    works(
        "DELEGATE_TYPE",
        "`KUBERNETES` and `HELM_DELEGATE` mean a pod: its host name becomes part of `name`, and `http_listen` is `0.0.0.0:3460`, where the kubelet asks",
    ),
    works("DELEGATE_TASK_CAPACITY", "`slots`"),
    works("POLL_FOR_TASKS", "`transport`: `true` is `poll`"),
    works(
        "DYNAMIC_REQUEST_HANDLING",
        "`true`: `admission.memory_percent` and `admission.cpu_percent` are those of the four thresholds below, 80 unless given",
    ),
    works("MEMORY_USAGE_THRESHOLD", "`admission.memory_percent`, with `DYNAMIC_REQUEST_HANDLING`"),
    works("DELEGATE_RESOURCE_THRESHOLD", "the same, where `MEMORY_USAGE_THRESHOLD` is not given"),
    works("CPU_USAGE_THRESHOLD", "`admission.cpu_percent`, with `DYNAMIC_REQUEST_HANDLING`"),
    works("DELEGATE_CPU_THRESHOLD", "the same, where `CPU_USAGE_THRESHOLD` is not given"),
    works("ADDITIONAL_CERTS_PATH", "`ca_files`"),
    works("SHARED_CA_CERTS_PATH", "`ca_files`"),
    works("LOGGING_LEVEL", "`log.level`"),
    works("PROXY_HOST", "`proxy.url`, with `PROXY_SCHEME` and `PROXY_PORT`"),
    works("PROXY_PORT", "`proxy.url`, its port"),
    works("PROXY_SCHEME", "`proxy.url`, its scheme; `http` unless given"),
    works("PROXY_USER", "`proxy.username`"),
    works("PROXY_PASSWORD", "the password for the proxy; `proxy.password_file` goes before it"),
    works(
        "PROXY_MANAGER",
        "`false`: `PROXY_HOST` is not used, because nothing but the control plane is reached through a proxy",
    ),
    works("NO_PROXY", "`proxy.no_proxy`"),
    aliased(
        "INIT_SCRIPT",
        "HARNESS_INIT_SCRIPT",
        Works("run before the agent starts. `lictor-agent migrate-init-script` shows what replaces it"),
    ),
    aliased("INIT_SCRIPT_PATH", "HARNESS_INIT_SCRIPT_PATH", Works("the same, from a file")),
    works("HARNESS_WORKDIR", "`state_dir` is the directory `lictor-agent` in it"),
    aliased(
        "ACCOUNT_ID",
        "HARNESS_ACCOUNT_ID",
        Nothing("an agent belongs to the control plane that made its join token; there are no accounts"),
    ),
    nothing("DELEGATE_NAMESPACE", "nothing here depends on the pod's namespace"),
    nothing(
        "DELEGATE_CLIENT_CERTIFICATE_PATH",
        "the agent makes its own key and gets its certificate with the join token; mTLS is always on",
    ),
    nothing("DELEGATE_CLIENT_CERTIFICATE_KEY_PATH", "the agent makes its own key, which never leaves its `state_dir`"),
    nothing(
        "DESTINATION_CA_PATH",
        "it says where certificates go in containers of builds, and there are no builds here",
    ),
    nothing(
        "TRUST_ALL_CERTIFICATES",
        "the control plane is always checked, and for hosts each credential says by itself whether their certificate is not (`--skip-cert-check`)",
    ),
    nothing("JAVA_OPTS", "there is no Java here"),
    nothing("CLIENT_TOOLS_DOWNLOAD_DISABLED", "no client tools are downloaded"),
    nothing("INSTALL_CLIENT_TOOLS_IN_BACKGROUND", "no client tools are installed"),
    nothing("GRPC_SERVICE_ENABLED", "the agent offers no gRPC service; it calls one"),
    nothing("GRPC_SERVICE_CONNECTOR_PORT", "the agent offers no gRPC service"),
    nothing("GRPC_AUTHORITY_MODIFICATION_DISABLED", "the authority is never modified"),
    nothing("STACK_DRIVER_LOGGING_ENABLED", "logs go to standard error and nowhere else"),
    nothing("ENABLE_CE", "there is no management of cloud costs"),
    nothing("BLOCK_SHELL_TASK", "there are no shell tasks; `policy_file` limits what tasks may do on Windows"),
    nothing("PRECHECK_CONN", "the connection is made at once and again and again; `/ready` says how it stands"),
    nothing("WORKING_DIR", "the agent works in `state_dir`"),
    nothing("DELEGATE_SESSION_IDENTIFIER", "sessions have identifiers of their own"),
    nothing("DELEGATE_GROUP_NAME", "there are no groups of agents; tags select them"),
    nothing("DELEGATE_GROUP_ID", "there are no groups of agents; tags select them"),
    nothing("DELEGATE_PROFILE", "there are no profiles; settings and INIT_SCRIPT take their place"),
    nothing("DEPLOY_MODE", "there is one mode of deployment"),
    nothing("NEXT_GEN", "there is one generation"),
    nothing("UPGRADER_TOKEN", "agents are upgraded by their image, not by an upgrader"),
    nothing("LOG_STREAMING_SERVICE_URL", "output goes to the control plane, over the one connection"),
    nothing("LOG_STREAMING_SERVICE_BASE_URL", "output goes to the control plane, over the one connection"),
    nothing("TI_SERVICE_URL", "there is no test intelligence"),
    nothing("ZTS_URL", "there is no such service"),
    nothing("HARNESS_CI_VOLUMES", "there are no builds here"),
    nothing("CI_MOUNT_VOLUMES", "there are no builds here"),
    nothing("WATCHER_STORAGE_URL", "the agent has no watcher"),
    nothing("WATCHER_CHECK_LOCATION", "the agent has no watcher"),
    nothing("DELEGATE_STORAGE_URL", "the agent downloads nothing"),
    nothing("DELEGATE_CHECK_LOCATION", "the agent downloads nothing"),
    nothing("REMOTE_WATCHER_URL_CDN", "the agent has no watcher"),
    nothing("CDN_URL", "the agent downloads nothing"),
    nothing("JRE_VERSION", "there is no Java here"),
    nothing("HELM_DESIRED_VERSION", "there are no client tools"),
    nothing("HELM3_PATH", "there are no client tools"),
    nothing("HELM_PATH", "there are no client tools"),
    nothing("KUBECTL_PATH", "there are no client tools"),
    nothing("USE_CDN", "the agent downloads nothing"),
    nothing("VERSION_CHECK_DISABLED", "the agent checks for no versions"),
];
