//! Which test provokes a code, and what it comes from. The page prints it, and a test checks that the tests exist.

use anyhow::Result;

use crate::sources;

/// What stands behind a code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// `FILE::TEST`.
    pub(crate) provoked_by: Vec<String>,
    /// Specification, Microsoft's documentation, a recording, or why no test can bring it about.
    pub(crate) derived_from: &'static str,
}

/// By the table below; a code that is not in it has the tests among the examinations that name it.
pub(crate) fn of(code: &str) -> Result<Evidence> {
    match ROWS.iter().find(|row| row.codes.contains(&code)) {
        Some(row) => Ok(Evidence {
            provoked_by: row.provoked_by.iter().map(|test| (*test).to_owned()).collect(),
            derived_from: row.derived_from,
        }),
        None => Ok(Evidence { provoked_by: sources::tests_that_name(code)?, derived_from: "" }),
    }
}

pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    ROWS.iter().flat_map(|row| row.codes.iter().copied())
}

/// Codes with the same evidence.
struct Row {
    codes: &'static [&'static str],
    provoked_by: &'static [&'static str],
    derived_from: &'static str,
}

const fn by(codes: &'static [&'static str], provoked_by: &'static [&'static str]) -> Row {
    Row { codes, provoked_by, derived_from: "" }
}

const fn from(codes: &'static [&'static str], provoked_by: &'static [&'static str], derived_from: &'static str) -> Row {
    Row { codes, provoked_by, derived_from }
}

const FAULTS: &str = "numbers and names of `winerror.h` and `wsmerror.h`; what they mean for shells: [MS-WSMV] 3.1.4 and 3.2.4, and \
                      recordings of a real host (`winrm/tests/recordings.rs`; they are no part of this repository). The simulated host was made after the same";
const REFUSALS: &str =
    "error numbers of RFC 4120, 7.5.9; that a host answers with them: RFC 4121, 4.1 and RFC 4559, 4.1";
const STATUS: &str = "NTSTATUS in the e-data of the KDC's error: [MS-KILE] 2.2.1 and 2.2.2, [MS-ERREF] 2.3.1. Samba's KDC sends none; a \
                      relay in front of MIT's does here";
const NUMBERS: &str = "error numbers of RFC 4120, 7.5.9. A relay in front of MIT's KDC gives them here";

const AWS: &str = "AWS gives one answer for several causes and names none: the troubleshooting pages of the IAM, KMS and STS documentation \
                   list them";

const ROWS: &[Row] = &[
    // Secrets under AWS KMS.
    from(
        &[
            "kms.suspect_account",
            "kms.suspect_alias",
            "kms.suspect_altered",
            "kms.suspect_assume_role_missing",
            "kms.suspect_audience",
            "kms.suspect_context",
            "kms.suspect_context_condition",
            "kms.suspect_endpoint",
            "kms.suspect_federated",
            "kms.suspect_imds_off",
            "kms.suspect_key_deleted",
            "kms.suspect_key_policy",
            "kms.suspect_key_store",
            "kms.suspect_no_instance_profile",
            "kms.suspect_no_route",
            "kms.suspect_not_on_aws",
            "kms.suspect_other_account",
            "kms.suspect_other_key",
            "kms.suspect_partition",
            "kms.suspect_pending_deletion",
            "kms.suspect_pending_import",
            "kms.suspect_provider_absent",
            "kms.suspect_region",
            "kms.suspect_role_absent",
            "kms.suspect_scp",
            "kms.suspect_secret_key",
            "kms.suspect_session_token",
            "kms.suspect_signing_key",
            "kms.suspect_subject",
            "kms.suspect_tampered",
            "kms.suspect_trust_policy",
            "kms.suspect_vpc_endpoint",
        ],
        &[],
        AWS,
    ),
    // Secrets that come beside an assignment, and those that agents encrypt.
    by(&["policy.kms_endpoint"], &["agent/src/policy/tests.rs::other_endpoints_are_refused_unless_they_are_listed"]),
    by(
        &["policy.kms_key", "policy.kms_role"],
        &["agent/src/policy/tests.rs::keys_and_roles_are_compared_part_by_part"],
    ),
    by(&["policy.secret_source"], &["agent/src/policy/tests.rs::sources_and_errands_can_be_forbidden"]),
    by(
        &[
            "secret.empty",
            "secret.malformed",
            "secret.source_missing",
            "secret.source_not_permitted",
            "secret.source_unreadable",
            "secret.too_long",
        ],
        &["agent/tests/agent/secrets.rs::what_does_not_come_or_is_not_there_is_handed_back_by_its_code"],
    ),
    by(
        &["secret.bad_record"],
        &["control-plane/tests/it/sealing.rs::what_a_lying_agent_makes_of_a_value_is_not_stored"],
    ),
    by(&["secret.superseded"], &["control-plane/tests/it/sealing.rs::of_two_who_write_at_once_the_later_is_told"]),
    by(
        &["secret.deleted", "secret.unusable"],
        &["control-plane/tests/it/deliveries.rs::a_secret_that_went_elsewhere_or_away_meanwhile_ends_the_task"],
    ),
    by(
        &["secret_manager.refused"],
        &["control-plane/src/platform/tests.rs::the_control_plane_is_nobody_but_by_its_own_tokens"],
    ),
    from(
        &["secret.not_fetched"],
        &[],
        "a bound for an answer that never comes; a failure of AWS has a code of its own. No test waits for it",
    ),
    from(
        &["secret.too_large"],
        &[],
        "a bound behind those of each secret and of their number, which keep every task below it",
    ),
    from(
        &["secret.refused"],
        &[],
        "what was allowed when the value was prepared and is not when the agent has encrypted it. No test is so quick",
    ),
    // Control plane.
    by(&["no_agent"], &["control-plane/tests/it/users.rs::a_selector_that_fits_no_agent_names_each_agent_and_why"]),
    by(
        &["too_many_assignments"],
        &["control-plane/src/dispatch/tests.rs::an_unstarted_task_that_every_agent_loses_is_not_given_for_ever"],
    ),
    by(&["batch.threshold"], &["tests/tests/e2e/batches.rs::too_many_failures_stop_what_has_not_started"]),
    by(
        &["credential.rejected"],
        &["control-plane/tests/it/secrets.rs::a_rejected_version_is_not_handed_out_until_the_secret_changes"],
    ),
    by(
        &["credential.deleted"],
        &["control-plane/tests/it/secrets.rs::deleting_a_credential_rejects_what_waits_for_it"],
    ),
    by(
        &["credential.unusable"],
        &["control-plane/tests/it/access.rs::a_credential_that_changed_hands_is_not_handed_out"],
    ),
    by(
        &["task.unreadable"],
        &[
            "control-plane/tests/it/secrets.rs::under_another_master_key_live_tasks_stop_the_start_and_final_ones_are_shown_without_their_content",
        ],
    ),
    by(
        &["control_plane.restored"],
        &["tests/tests/e2e/backup.rs::a_restored_backup_goes_on_and_is_honest_about_what_it_missed"],
    ),
    by(&["lease.expired"], &["control-plane/tests/it/leases.rs::a_lease_that_runs_out_leaves_a_started_task_unknown"]),
    by(&["agent.lost_task"], &["control-plane/tests/it/leases.rs::an_agent_that_restarts_without_its_tasks"]),
    by(
        &["agent.lost_journal"],
        &["control-plane/tests/it/leases.rs::an_agent_that_lost_its_journal_may_have_started_anything"],
    ),
    by(
        &["agent.revoked", "agent.contradiction", "task.cancelled"],
        &["control-plane/src/dispatch/tests/codes.rs::what_becomes_of_a_task_that_vanished_is_told_by_its_code"],
    ),
    // Agent.
    by(
        &["agent.invalid_task", "agent.unsupported", "secret.unsealable", "secret.not_text"],
        &["agent/tests/agent/codes.rs::what_cannot_be_done_is_handed_back_by_its_code"],
    ),
    by(
        &["kerberos.keytab_not_permitted", "kerberos.no_key", "kerberos.cache_not_permitted", "kerberos.no_realm"],
        &["agent/tests/agent/codes.rs::what_cannot_be_done_is_handed_back_by_its_code"],
    ),
    from(
        &["kerberos.not_configured"],
        &[],
        "the agent's own state. Tasks for Kerberos are routed to agents that announce it, so that only one whose settings went away \
         at its restart meets this",
    ),
    by(
        &["agent.stale_assignment", "agent.draining"],
        &["agent/tests/agent/codes.rs::what_becomes_of_tasks_that_were_held_is_told_by_its_code"],
    ),
    by(
        &["agent.cancelled", "agent.timeout"],
        &["tests/tests/e2e/first_light.rs::a_running_command_is_cancelled_on_its_host"],
    ),
    by(&["agent.drained"], &["tests/tests/e2e/restarts.rs::sigterm_with_a_short_grace_stops_the_command_on_its_host"]),
    by(&["agent.restarted"], &["agent/tests/agent/codes.rs::a_restart_before_the_start_is_told_by_its_code"]),
    by(
        &["agent.input_cut"],
        &["tests/tests/e2e/restarts.rs::after_kill_9_while_input_is_sent_the_command_is_ended_and_its_task_unknown"],
    ),
    from(
        &["agent.journal"],
        &[],
        "a disk of the agent that is full or fails. What the journal makes of one is tested beside it (`agent/src/tasks/journal/tests.rs`)",
    ),
    from(&["agent.internal"], &[], "a job of the agent that panics: there is no known way to make one"),
    // The agent's doctor.
    by(
        &[
            "agent.configuration",
            "agent.policy_file",
            "agent.state_unusable",
            "control_plane.resolve",
            "control_plane.connect",
            "control_plane.pin",
            "control_plane.tls",
            "agent.keytab_unusable",
            "agent.memory",
            "agent.no_host",
        ],
        &["tests/tests/e2e/agent_doctor.rs::what_is_broken_is_named_and_a_join_token_stays_unspent"],
    ),
    by(
        &["agent.keytab_open", "agent.nothing_held"],
        &["tests/tests/e2e/agent_doctor.rs::kerberos_of_the_agent_is_looked_at_and_a_host_by_its_keytab"],
    ),
    by(
        &["agent.certificate_due", "agent.certificate_ended", "agent.clock"],
        &["agent/src/doctor/tests.rs::the_ages_of_a_certificate"],
    ),
    by(
        &["agent.identity", "agent.join_token", "agent.not_enrolled", "agent.state_open"],
        &["agent/src/doctor/tests.rs::an_identity_that_is_missing_damaged_or_open_is_told_apart"],
    ),
    by(&["agent.journal_damaged"], &["agent/src/doctor/tests.rs::a_journal_that_was_set_aside_is_named"]),
    by(
        &["agent.state_space", "agent.open_files"],
        &["tests/tests/errors/agent_doctor.rs::what_is_wrong_where_an_agent_works_has_its_code"],
    ),
    by(
        &["agent.keytab_old_keys", "agent.cache_ended"],
        &["tests/tests/errors/agent_doctor.rs::keytabs_and_caches_of_no_use_have_their_codes"],
    ),
    by(
        &["policy.host"],
        &["tests/tests/e2e/policy.rs::what_the_policy_forbids_is_refused_with_its_rule_and_done_by_another_agent"],
    ),
    by(
        &["policy.address"],
        &["tests/tests/e2e/policy.rs::what_the_policy_forbids_is_refused_with_its_rule_and_done_by_another_agent"],
    ),
    by(
        &["policy.identity", "policy.task_kind"],
        &["tests/tests/e2e/policy.rs::a_changed_policy_counts_and_a_broken_one_does_not"],
    ),
    by(
        &["policy.auth", "policy.delegation"],
        &["agent/src/policy/tests.rs::ways_to_authenticate_and_delegation_can_be_limited"],
    ),
    by(
        &["policy.basic", "policy.plain_http", "policy.port", "policy.skip_cert_check", "policy.task_ca"],
        &["agent/src/policy/tests.rs::connections_are_limited"],
    ),
    by(&["policy.script_size"], &["agent/src/policy/tests.rs::tasks_are_limited_by_kind_and_by_all_that_they_bring"]),
    // The way to the host.
    by(
        &[
            "resolve.failed",
            "resolve.timeout",
            "connect.refused",
            "connect.timeout",
            "connect.unreachable",
            "connect.failed",
        ],
        &["tests/tests/errors/networks.rs::what_stands_in_the_way_is_told_by_its_code"],
    ),
    by(&["connect.suspect_firewall"], &["tests/tests/errors/networks.rs::what_stands_in_the_way_is_told_by_its_code"]),
    from(
        &["certificate.not_accepted"],
        &[],
        "the verdicts of OpenSSL's check of a chain beyond those that have codes of their own (`X509_V_ERR_*` in openssl-verify(1))",
    ),
    from(
        &["certificate.none"],
        &[],
        "a host that answers one handshake and fails the next: the certificate is looked at in one of its own",
    ),
    by(&["resolve.forbidden"], &["winrm/src/connection/tests.rs::a_host_is_connected_to_at_permitted_addresses_only"]),
    by(
        &["tls.untrusted", "tls.hostname", "tls.expired"],
        &["winrm/src/connection/tests.rs::certificates_are_checked_by_authority_name_and_time"],
    ),
    by(&["tls.protocol"], &["winrm/src/connection/tests.rs::what_is_no_modern_tls_is_named"]),
    by(
        &["tls.timeout", "timeout.read", "timeout.deadline"],
        &["winrm/src/connection/tests.rs::a_silent_host_is_given_up"],
    ),
    by(&["tls.settings"], &["winrm/src/connection/tests.rs::authorities_that_are_none_are_a_mistake_in_the_settings"]),
    by(
        &["tls.failed"],
        &["tests/tests/errors/faults.rs::a_peer_that_ends_the_handshake_is_told_apart_from_one_without_tls"],
    ),
    from(
        &["http.bad_request", "http.forbidden", "http.unavailable", "http.status", "http.unexpected", "http.protocol"],
        &["winrm/src/connection/tests.rs::statuses_that_are_no_answer_end_the_connection"],
        "RFC 9110, and what clients of WinRM report of HTTP.sys: 400 on a sealed request whose context is gone, 503 while the service starts",
    ),
    by(&["http.not_found"], &["winrm/src/connection/tests.rs::handshakes_that_go_wrong_before_the_credential_is_used"]),
    by(&["connection.closed"], &["winrm/src/connection/tests.rs::unsent_and_in_doubt_are_told_apart"]),
    by(&["connection.unusable"], &["winrm/src/connection/tests.rs::a_dropped_exchange_closes_the_socket"]),
    // Authentication.
    by(&["auth.rejected"], &["winrm/src/connection/tests.rs::a_rejected_password_and_a_mechanism_that_is_not_offered"]),
    by(&["auth.rejected_before"], &["winrm/src/pool/tests.rs::a_wrong_password_is_tried_once"]),
    by(
        &["auth.unavailable", "auth.handshake"],
        &["winrm/src/connection/tests.rs::handshakes_that_go_wrong_before_the_credential_is_used"],
    ),
    by(
        &["auth.basic_over_http", "auth.encryption_impossible"],
        &["winrm/src/connection/tests.rs::settings_that_contradict_each_other_send_nothing"],
    ),
    by(
        &["auth.credential_unusable", "kerberos.host_is_address"],
        &["winrm/src/auth/kerberos/names.rs::an_address_is_refused_before_anything_is_asked"],
    ),
    from(
        &["auth.ticket_refused", "auth.ticket_clock_skew", "auth.ticket_wrong_key"],
        &["tests/tests/kerberos/acceptors.rs::what_hosts_have_against_a_ticket_is_told_apart"],
        REFUSALS,
    ),
    from(
        &["auth.ticket_not_valid", "auth.ticket_replayed"],
        &["winrm/src/auth/kerberos/tests.rs::what_the_host_says_is_understood"],
        REFUSALS,
    ),
    by(
        &["auth.ticket_other_mechanism"],
        &["winrm/src/connection/tests.rs::a_host_without_kerberos_is_told_apart_and_ntlm_is_never_tried_for_it"],
    ),
    from(
        &["auth.ticket_too_large"],
        &["winrm/src/connection/tests.rs::a_ticket_that_is_too_long_for_the_host_is_not_a_mystery"],
        "Microsoft's page on MaxFieldLength and MaxRequestBytes of HTTP.sys",
    ),
    by(&["auth.lost"], &["winrm/tests/spnego_peer.rs::bad_answers_end_a_sealed_connection"]),
    // Kerberos.
    by(
        &[
            "kerberos.principal_unknown",
            "kerberos.password_rejected",
            "kerberos.account_revoked",
            "kerberos.account_expired",
            "kerberos.password_expired",
        ],
        &["tests/tests/kerberos/manager/errors.rs::logins_that_a_kdc_refuses"],
    ),
    from(
        &[
            "kerberos.account_locked",
            "kerberos.account_disabled",
            "kerberos.logon_hours",
            "kerberos.workstation",
            "kerberos.authentication_policy",
            "kerberos.password_must_change",
        ],
        &["tests/tests/errors/kdcs.rs::what_active_directory_has_against_an_account_is_told_apart"],
        STATUS,
    ),
    by(
        &["kerberos.keytab_rejected", "kerberos.keytab_principal", "kerberos.keytab_unreadable"],
        &["tests/tests/kerberos/manager/errors.rs::keytabs_that_do_not_fit"],
    ),
    by(
        &["kerberos.keytab_enctype", "kerberos.cache_no_tgt"],
        &["tests/tests/errors/kdcs.rs::keys_and_tickets_that_are_of_no_use"],
    ),
    by(
        &["kerberos.cache_expired", "kerberos.cache_kind", "kerberos.cache_principal", "kerberos.cache_unreadable"],
        &["tests/tests/kerberos/manager/caches.rs::caches_that_are_of_no_use"],
    ),
    by(&["kerberos.clock_skew"], &["tests/tests/kerberos/manager/errors.rs::clocks_that_differ_are_measured"]),
    by(
        &["kerberos.no_kdc", "kerberos.kdc_unreachable"],
        &["tests/tests/kerberos/manager/errors.rs::realms_and_kdcs_that_are_not_there"],
    ),
    by(&["kerberos.deadline"], &["tests/tests/kerberos/manager/rules.rs::a_waiter_gives_up_at_its_own_deadline"]),
    by(
        &["kerberos.kdc_answer", "kerberos.unjudged"],
        &["tests/tests/errors/kdcs.rs::an_answer_that_is_none_and_a_login_that_nobody_judges"],
    ),
    from(
        &["kerberos.kdc_error", "kerberos.wrong_realm", "kerberos.policy"],
        &["tests/tests/errors/kdcs.rs::what_a_kdc_says_of_a_login_is_told_apart"],
        NUMBERS,
    ),
    from(
        &["kerberos.service_duplicate", "kerberos.service_of_user", "kerberos.service_enctype"],
        &["tests/tests/errors/kdcs.rs::what_a_kdc_says_of_a_service_is_told_apart"],
        NUMBERS,
    ),
    by(
        &["kerberos.service_unknown", "kerberos.ip_address"],
        &["tests/tests/kerberos/manager/errors.rs::services_that_are_not_there"],
    ),
    by(&["kerberos.enctype"], &["tests/tests/kerberos/manager/errors.rs::accounts_without_aes_keys"]),
    by(&["kerberos.principal_invalid"], &["tests/tests/kerberos/manager/errors.rs::names_that_are_none"]),
    by(
        &["kerberos.realm_unknown"],
        &["kerberos/src/credentials/names.rs::users_by_logon_name_and_by_user_principal_name"],
    ),
    by(&["kerberos.service_invalid"], &["kerberos/src/credentials/names.rs::services_by_the_name_of_their_host"]),
    from(
        &["kerberos.cross_realm"],
        &[],
        "the client library, which ends chains of referrals that are too long or come back to where they were. MIT's KDC does not refer \
         in circles: it refuses by its policy",
    ),
    by(
        &["kerberos.not_forwardable"],
        &["tests/tests/kerberos/manager/rules.rs::delegation_forwards_a_ticket_when_it_is_asked_for"],
    ),
    by(
        &["kerberos.delegation_not_trusted"],
        &["tests/tests/kerberos/manager/rules.rs::a_domain_can_insist_on_trusted_hosts_for_delegation"],
    ),
    by(
        &["kerberos.stopped"],
        &["kerberos/src/credentials/shelf/tests.rs::a_panicking_flight_and_an_ended_manager_leave_nobody_waiting"],
    ),
    // The conversation.
    from(
        &["seal.plain_answer", "seal.malformed", "seal.truncated", "seal.length", "seal.decrypt"],
        &["winrm/tests/spnego_peer.rs::bad_answers_end_a_sealed_connection"],
        "[MS-WSMV] 2.2.9.1",
    ),
    from(
        &["seal.encrypt"],
        &[],
        "the interface of the libraries that seal, which may fail. There is no known message that they refuse",
    ),
    by(
        &["soap.malformed", "soap.wrong_relates_to"],
        &["tests/tests/errors/faults.rs::answers_that_answer_nothing_have_their_codes"],
    ),
    by(&["soap.too_large"], &["winrm/src/connection/tests.rs::statuses_that_are_no_answer_end_the_connection"]),
    by(&["request.unsendable"], &["tests/tests/errors/faults.rs::a_request_that_xml_cannot_carry_is_not_sent"]),
    // The pool.
    by(&["pool.timeout"], &["winrm/src/pool/tests.rs::bounds_hold_and_the_wait_ends_at_the_deadline"]),
    by(&["pool.closed"], &["winrm/src/pool/tests.rs::a_warm_command_is_one_command_and_one_receive"]),
    by(
        &["pool.session_in_doubt"],
        &["winrm/src/pool/tests.rs::a_command_that_the_host_does_not_know_is_not_sent_again"],
    ),
    by(&["pool.not_noted"], &["winrm/src/pool/tests/attach.rs::every_shell_that_a_command_is_sent_to_is_noted_first"]),
    // Faults.
    from(
        &[
            "fault.timed_out",
            "fault.invalid_selectors",
            "fault.access_denied",
            "fault.encoding_limit",
            "fault.quota_limit",
            "fault.action_not_supported",
            "fault.unavailable",
        ],
        &["tests/tests/errors/faults.rs::faults_without_a_number_are_told_by_their_subcode"],
        "WS-Management (DSP0226), 14.6: master fault table; [MS-WSMV] 2.2.4.43",
    ),
    from(
        &[
            "fault.5",
            "fault.170",
            "fault.995",
            "fault.1018",
            "fault.1326",
            "fault.1331",
            "fault.1460",
            "fault.1907",
            "fault.1909",
            "fault.2147943418",
            "fault.2150858752",
            "fault.2150858771",
            "fault.2150858772",
            "fault.2150858790",
            "fault.2150858793",
            "fault.2150858805",
            "fault.2150858806",
            "fault.2150858813",
            "fault.2150858815",
            "fault.2150858823",
            "fault.2150858824",
            "fault.2150858843",
            "fault.2150859001",
            "fault.2150859027",
            "fault.2150859082",
            "fault.2150859087",
            "fault.2150859161",
            "fault.2150859173",
            "fault.2150859174",
            "fault.2150859175",
            "fault.2150859176",
            "fault.2150859177",
            "fault.2150859179",
            "fault.2150859180",
            "fault.2150859212",
            "fault.2150859230",
            "fault.2150859236",
            "fault.2150859237",
            "fault.2150859238",
            "fault.2150859239",
            "fault.2150859240",
            "fault.2150859241",
            "fault.2150859242",
            "fault.other",
        ],
        &["tests/tests/errors/faults.rs::each_fault_is_told_by_its_code"],
        FAULTS,
    ),
];
