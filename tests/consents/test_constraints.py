"""The database says no: every named constraint and every trigger of ours refuses what it is named after.

Raw SQL, because that is what the constraints are for: a script, a console, a bug that goes round the domain.
"""

import datetime

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction

from consents import clients, ledger, lifecycle, references
from consents.actors import Actor
from consents.ledger import Fact
from consents.models import (
    Breaker,
    Case,
    ChannelChange,
    ConsentRequest,
    CountingCode,
    Escalation,
    Evidence,
    GymRun,
    IdempotencyKey,
    Identity,
    InboundMessage,
    Lookup,
    Notice,
    Transfer,
    Upload,
    UploadPart,
    UploadRefusal,
    WaitingHolding,
    WeeklyCalls,
    WeeklyCount,
)
from providers import keysets
from providers.models import ChannelKey, DirectoryEntry, PolicyRule, Scope
from tests import factories

pytestmark = pytest.mark.django_db

# constraint → statements, each of which breaks it and nothing that PostgreSQL would notice before (checks by name, then
# unique indexes; triggers first of all).
REFUSED: dict[str, list[str]] = {
    # organizations and licences
    "organization_code_is_ten_letters_or_digits": [
        "UPDATE providers_organization SET code = 'SHORT' WHERE id = %(source)s",
        "UPDATE providers_organization SET code = 'lower00001' WHERE id = %(source)s",
    ],
    "registration_number_is_ten_digits": [
        "UPDATE providers_organization SET registration_number = '123' WHERE id = %(source)s",
        "UPDATE providers_organization SET registration_number = '123-45-678' WHERE id = %(source)s",
    ],
    "corporate_number_is_thirteen_digits": [
        "UPDATE providers_directoryentry SET corporate_number = '110111-123456'"
    ],
    "relay_code_is_an_organization_code": ["UPDATE providers_directoryentry SET relay_code = 'short'"],
    "auth_type_is_known": ["UPDATE providers_directoryentry SET auth_type = '02'"],
    "three_quiet_times_at_most": ["UPDATE providers_directoryentry SET quiet_times = '{a,b,c,d}'"],
    "calls_are_told_once_a_kind": [
        "INSERT INTO consents_weeklycalls (count_id, kind, succeeded, failed, days) SELECT count_id, kind, 0, 0, '[]' FROM consents_weeklycalls"
    ],
    "calls_are_not_negative": [
        "UPDATE consents_weeklycalls SET succeeded = -1",
        "UPDATE consents_weeklycalls SET failed = -1",
    ],
    "organization_has_names": [
        "UPDATE providers_organization SET name_ko = '' WHERE id = %(source)s",
        "UPDATE providers_organization SET name_en = '' WHERE id = %(source)s",
    ],
    "licence_decision_is_recorded_once": [
        "INSERT INTO providers_licence (organization_id, status, decided_on, effective_on, source, note) "
        "SELECT organization_id, status, decided_on, effective_on, 'again', '' FROM providers_licence WHERE id = %(licence)s"
    ],
    "licence_takes_effect_on_or_after_its_decision": [
        "INSERT INTO providers_licence (organization_id, status, decided_on, effective_on, source, note) "
        "VALUES (%(source)s, 'held', '2026-01-02', '2026-01-01', 'a decision', '')"
    ],
    "licence_names_its_source": [
        "INSERT INTO providers_licence (organization_id, status, decided_on, effective_on, source, note) "
        "VALUES (%(source)s, 'held', '2026-01-02', '2026-01-02', '', '')"
    ],
    "licence_status_is_known": [
        "INSERT INTO providers_licence (organization_id, status, decided_on, effective_on, source, note) "
        "VALUES (%(source)s, 'forever', '2026-01-02', '2026-01-02', 'a decision', '')"
    ],
    "providers_licence_is_append_only": [
        "UPDATE providers_licence SET status = 'held' WHERE id = %(licence)s",
        "DELETE FROM providers_licence WHERE id = %(licence)s",
    ],
    # what can be asked for
    "scope_sensitivity_is_one_to_five": [
        "UPDATE providers_scope SET sensitivity = 0 WHERE item = %(scope)s",
        "UPDATE providers_scope SET sensitivity = 6 WHERE item = %(scope)s",
    ],
    "scope_has_a_code": ["UPDATE providers_scope SET codes = '{}' WHERE item = %(scope)s"],
    "service_state_is_known": ["UPDATE providers_service SET state = 'gone' WHERE id = %(service)s"],
    "terms_version_is_unique_per_service": ["UPDATE providers_terms SET version = 1 WHERE id = %(draft)s"],
    "service_has_one_published_terms": [
        "UPDATE providers_terms SET state = 'published', published_at = now(), digest_ko = 'sha256:0', digest_en = 'sha256:0' "
        "WHERE id = %(draft)s"
    ],
    "published_terms_have_date_and_digests": [
        "UPDATE providers_terms SET state = 'published', digest_ko = 'sha256:0', digest_en = 'sha256:0' WHERE id = %(draft)s",
        "UPDATE providers_terms SET state = 'published', published_at = now(), digest_ko = 'sha256:0' WHERE id = %(draft)s",
    ],
    "later_terms_say_what_changed": ["UPDATE providers_terms SET change_reason_ko = '' WHERE id = %(draft)s"],
    "terms_state_is_known": [
        "UPDATE providers_terms SET state = 'lost', published_at = now(), digest_ko = 'sha256:0', digest_en = 'sha256:0' "
        "WHERE id = %(draft)s"
    ],
    "published_terms_never_change": [
        "UPDATE providers_terms SET text_ko = 'other' WHERE id = %(terms)s",
        "UPDATE providers_terms SET summary_en = 'other' WHERE id = %(terms)s",
        "UPDATE providers_terms SET version = 9 WHERE id = %(terms)s",
        "UPDATE providers_terms SET state = 'draft' WHERE id = %(terms)s",
        "UPDATE providers_terms SET state = 'published' WHERE id = %(retired)s",
        "DELETE FROM providers_terms WHERE id = %(terms)s",
    ],
    "terms_item_position_is_unique": [
        "UPDATE providers_termsitem SET position = 1 WHERE terms_id = %(draft)s AND position = 2"
    ],
    "terms_ask_each_source_once": [
        "UPDATE providers_termsitem SET source_id = (SELECT source_id FROM providers_termsitem WHERE terms_id = %(draft)s "
        "AND position = 1) WHERE terms_id = %(draft)s AND position = 2"
    ],
    "transfer_item_names_its_source_and_scopes": [
        "UPDATE providers_termsitem SET scopes = '{}' WHERE terms_id = %(draft)s AND position = 1",
        "UPDATE providers_termsitem SET source_id = NULL WHERE terms_id = %(draft)s AND position = 1",
    ],
    "only_transfer_items_have_a_source": [
        "UPDATE providers_termsitem SET source_id = %(source)s WHERE terms_id = %(draft)s AND kind = 'marketing'"
    ],
    "only_third_party_items_have_a_recipient": [
        "UPDATE providers_termsitem SET recipient_id = %(source)s WHERE terms_id = %(draft)s AND kind = 'marketing'",
        "UPDATE providers_termsitem SET recipient_id = NULL WHERE terms_id = %(draft)s AND kind = 'third_party'",
    ],
    "marketing_and_third_party_are_optional": [
        "UPDATE providers_termsitem SET required = true, grade = '' WHERE terms_id = %(draft)s AND kind = 'marketing'",
        "UPDATE providers_termsitem SET required = true, grade = '' WHERE terms_id = %(draft)s AND kind = 'third_party'",
    ],
    "grade_is_for_optional_items": [
        "UPDATE providers_termsitem SET grade = '06' WHERE terms_id = %(draft)s AND kind = 'marketing'",
        "UPDATE providers_termsitem SET grade = '01' WHERE terms_id = %(draft)s AND position = 1",
    ],
    "cycle_is_one_to_four_weeks": [
        "UPDATE providers_termsitem SET cycle = '1/5w' WHERE terms_id = %(draft)s AND position = 1"
    ],
    "valid_for_one_month_to_five_years": [
        "UPDATE providers_termsitem SET valid_months = 0 WHERE terms_id = %(draft)s AND position = 1",
        "UPDATE providers_termsitem SET valid_months = 61 WHERE terms_id = %(draft)s AND position = 1",
    ],
    "published_items_never_change": [
        "UPDATE providers_termsitem SET purpose_ko = 'other' WHERE terms_id = %(terms)s",
        "UPDATE providers_termsitem SET terms_id = %(draft)s WHERE terms_id = %(terms)s",
        "UPDATE providers_termsitem SET terms_id = %(terms)s, position = 99 WHERE terms_id = %(draft)s AND position = 1",
        "DELETE FROM providers_termsitem WHERE terms_id = %(terms)s",
        "INSERT INTO providers_termsitem (terms_id, position, kind, required, title_ko, title_en, scopes, riders, cycle, valid_months, "
        "purpose_ko, purpose_en, retention_ko, retention_en, paid, grade) VALUES (%(terms)s, 99, 'use', false, 'a', 'a', '{}', '{}', '', "
        "12, 'a', 'a', 'a', 'a', false, '')",
    ],
    # channels and numbers
    "organization_has_one_open_channel": [
        "UPDATE providers_channel SET state = 'open', opened_at = now() WHERE id = %(testing_channel)s"
    ],
    "channel_has_an_address_where_we_call": [
        "UPDATE providers_channel SET protocol = 'native', address = '' WHERE id = %(channel)s"
    ],
    "open_channel_knows_since_when": ["UPDATE providers_channel SET opened_at = NULL WHERE id = %(channel)s"],
    "organization_has_one_server_client": [
        "UPDATE providers_apiclient SET retired_at = NULL WHERE organization_id = %(owner)s"
    ],
    "only_an_app_signs_in_without_a_secret": [
        "UPDATE providers_apiclient SET method = 'none' WHERE organization_id = %(owner)s",
        "UPDATE providers_apiclient SET kind = 'app' WHERE organization_id = %(owner)s",
    ],
    "client_has_two_secrets_at_most": ["UPDATE providers_clientsecret SET place = 1"],
    "secret_has_place_one_or_two": ["UPDATE providers_clientsecret SET place = 3 WHERE place = 2"],
    "secret_is_a_hash": ["UPDATE providers_clientsecret SET digest = 'hunter2'"],
    "key_set_has_keys_or_an_address": ["UPDATE providers_keyset SET keys = '[]'"],
    "channel_key_id_is_unique": [
        "UPDATE providers_channelkey SET kid = 'one' WHERE channel_id = %(channel)s AND kid = 'two'"
    ],
    "channel_key_is_a_secret_or_a_jwk": [
        "UPDATE providers_channelkey SET jwk = '{}' WHERE channel_id = %(channel)s AND kid = 'one'",
        "UPDATE providers_channelkey SET kind = 'jwk' WHERE channel_id = %(channel)s AND kid = 'one'",
        "UPDATE providers_channelkey SET sealed_secret = NULL WHERE channel_id = %(channel)s AND kid = 'one'",
    ],
    "policy_rule_has_one_value_per_day": [
        "UPDATE providers_policyrule SET effective_on = '2020-01-01' WHERE key = 'TEST'"
    ],
    "policy_rule_names_its_source": ["UPDATE providers_policyrule SET source = '' WHERE key = 'TEST'"],
    # people
    "person_threshold_is_one_to_fifty": [
        "UPDATE consents_person SET warn_at = 0 WHERE id = %(person)s",
        "UPDATE consents_person SET warn_at = 51 WHERE id = %(person)s",
    ],
    "person_language_is_known": ["UPDATE consents_person SET language = 'fr' WHERE id = %(person)s"],
    "operator_admin_has_an_organization_and_regulator_has_none": [
        "UPDATE consents_member SET organization_id = NULL WHERE person_id = %(admin)s",
        "UPDATE consents_member SET role = 'regulator' WHERE person_id = %(admin)s",
    ],
    # subscriptions
    "person_joins_a_service_once_at_a_time": [
        "UPDATE consents_subscription SET service_id = %(service)s WHERE id = %(other)s"
    ],
    "subscription_ends_with_date_and_reason": [
        "UPDATE consents_subscription SET ended_at = now() WHERE id = %(live)s",
        "UPDATE consents_subscription SET end_reason = 'expired' WHERE id = %(live)s",
        "UPDATE consents_subscription SET state = 'ended', end_reason = 'expired' WHERE id = %(live)s",
        "UPDATE consents_subscription SET state = 'ended', ended_at = now() WHERE id = %(live)s",
    ],
    "subscription_ends_after_it_began": [
        "UPDATE consents_subscription SET state = 'ended', end_reason = 'expired', ended_at = joined_at - interval '1 second' "
        "WHERE id = %(live)s"
    ],
    "subscription_is_erased_only_after_its_end": [
        "UPDATE consents_subscription SET erasure = 'requested', erasure_requested_at = now() WHERE id = %(live)s"
    ],
    "subscription_erasure_fields_agree": [
        "UPDATE consents_subscription SET erasure_requested_at = NULL WHERE id = %(ended)s",
        "UPDATE consents_subscription SET erasure = 'confirmed' WHERE id = %(ended)s",
        "UPDATE consents_subscription SET erasure = 'refused' WHERE id = %(ended)s",
        "UPDATE consents_subscription SET erasure_confirmed_at = now() WHERE id = %(ended)s",
    ],
    "consents_subscription_ended_stays_ended": [
        "UPDATE consents_subscription SET state = 'active', ended_at = NULL, end_reason = '' WHERE id = %(ended)s",
        "UPDATE consents_subscription SET until_on = until_on + 1 WHERE id = %(ended)s",
        "UPDATE consents_subscription SET ended_at = ended_at + interval '1 day' WHERE id = %(ended)s",
        "UPDATE consents_subscription SET end_reason = 'error' WHERE id = %(ended)s",
    ],
    "consents_subscription_erasure_goes_forward": [
        "UPDATE consents_subscription SET erasure = 'not_requested', erasure_requested_at = NULL WHERE id = %(ended)s",
        "UPDATE consents_subscription SET erasure = 'requested', erasure_confirmed_at = NULL WHERE id = %(erased)s",
        "UPDATE consents_subscription SET erasure = 'refused', erasure_refusal = 'law' WHERE id = %(erased)s",
    ],
    "consents_subscription_version_rises": [
        "UPDATE consents_subscription SET version = version - 1 WHERE id = %(ended)s"
    ],
    "consents_subscription_is_never_deleted": ["DELETE FROM consents_subscription WHERE id = %(ended)s"],
    # consents
    "source_sends_once_per_subscription": [
        "UPDATE consents_consent SET source_id = %(consent_source)s WHERE id = %(second)s"
    ],
    "terms_item_is_agreed_once": [
        "UPDATE consents_consent SET terms_item_id = %(item)s WHERE id = %(second)s"
    ],
    "transfer_consent_names_its_source_and_scopes": [
        "UPDATE consents_consent SET source_id = NULL WHERE id = %(consent)s",
        "UPDATE consents_consent SET scopes = '{}' WHERE id = %(consent)s",
    ],
    "third_party_consent_names_its_recipient": [
        "UPDATE consents_consent SET recipient_id = NULL WHERE subscription_id = %(live)s AND kind = 'third_party'"
    ],
    "consent_state_and_dates_agree": [
        "UPDATE consents_consent SET state = 'paused' WHERE id = %(consent)s",
        "UPDATE consents_consent SET paused_at = now() WHERE id = %(consent)s",
        "UPDATE consents_consent SET ended_at = now() WHERE id = %(consent)s",
        "UPDATE consents_consent SET state = 'ended', ended_at = now() WHERE id = %(consent)s",
        "UPDATE consents_consent SET state = 'ended', end_reason = 'expired' WHERE id = %(consent)s",
    ],
    "consent_ends_after_it_was_given": [
        "UPDATE consents_consent SET state = 'ended', end_reason = 'expired', ended_at = granted_at - interval '1 second' "
        "WHERE id = %(consent)s"
    ],
    "consent_is_erased_only_after_its_end": [
        "UPDATE consents_consent SET erasure = 'requested', erasure_requested_at = now() WHERE id = %(consent)s"
    ],
    "consent_erasure_fields_agree": [
        "UPDATE consents_consent SET erasure_requested_at = NULL WHERE id = %(withdrawn)s",
        "UPDATE consents_consent SET erasure = 'confirmed' WHERE id = %(withdrawn)s",
        "UPDATE consents_consent SET erasure = 'refused' WHERE id = %(withdrawn)s",
    ],
    "consent_cycle_is_one_to_four_weeks": [
        "UPDATE consents_consent SET cycle = '1/1d' WHERE id = %(consent)s"
    ],
    "pause_end_belongs_to_a_pause": [
        "UPDATE consents_consent SET paused_until = '2027-01-01' WHERE id = %(consent)s"
    ],
    "consents_consent_ended_stays_ended": [
        "UPDATE consents_consent SET state = 'active', ended_at = NULL, end_reason = '' WHERE id = %(withdrawn)s",
        "UPDATE consents_consent SET state = 'paused', paused_at = now(), ended_at = NULL, end_reason = '' WHERE id = %(withdrawn)s",
        "UPDATE consents_consent SET until_on = until_on + 1 WHERE id = %(withdrawn)s",
        "UPDATE consents_consent SET end_reason = 'error' WHERE id = %(withdrawn)s",
    ],
    "consents_consent_erasure_goes_forward": [
        "UPDATE consents_consent SET erasure = 'not_requested', erasure_requested_at = NULL WHERE id = %(withdrawn)s"
    ],
    "consents_consent_version_rises": [
        "UPDATE consents_consent SET version = version - 1 WHERE id = %(withdrawn)s"
    ],
    "consents_consent_is_never_deleted": ["DELETE FROM consents_consent WHERE id = %(withdrawn)s"],
    # requests
    "consent_request_is_decided_with_a_date": [
        "UPDATE consents_consentrequest SET state = 'declined' WHERE id = %(pending)s",
        "UPDATE consents_consentrequest SET decided_at = now() WHERE id = %(pending)s",
    ],
    "granted_request_names_its_subscription": [
        "UPDATE consents_consentrequest SET state = 'granted', decided_at = now(), person_id = %(person)s WHERE id = %(pending)s",
        "UPDATE consents_consentrequest SET state = 'granted', decided_at = now(), subscription_id = %(live)s WHERE id = %(pending)s",
    ],
    "code_belongs_to_a_granted_request": [
        "UPDATE consents_consentrequest SET code_challenge = repeat('c', 43), code_digest = 'd', code_until = now() WHERE id = %(pending)s",
        "UPDATE consents_consentrequest SET code_challenge = repeat('c', 43), code_until = now() WHERE id = %(pending)s",
    ],
    "redeemed_code_is_gone": [
        "UPDATE consents_consentrequest SET redeemed_at = now(), code_digest = 'd', code_until = now(), code_challenge = 'c', "
        "state = 'granted', decided_at = now(), person_id = %(person)s, subscription_id = %(live)s WHERE id = %(pending)s",
    ],
    "code_is_of_one_request": [
        "INSERT INTO consents_consentrequest (id, organization_id, service_id, terms_id, redirect_uri, client_state, code_challenge, "
        "state, lodged_at, expires_at, decided_at, person_id, subscription_id, code_digest, code_until) "
        "SELECT gen_random_uuid(), organization_id, service_id, terms_id, '', '', 'c', 'granted', lodged_at, expires_at, now(), "
        "%(person)s, %(live)s, 'd', now() FROM consents_consentrequest, generate_series(1, 2) WHERE id = %(pending)s",
    ],
    "consent_request_expires_after_lodging": [
        "UPDATE consents_consentrequest SET expires_at = lodged_at WHERE id = %(pending)s"
    ],
    "consent_request_is_decided_once": [
        "UPDATE consents_consentrequest SET state = 'pending', decided_at = NULL WHERE id = %(declined)s",
        "UPDATE consents_consentrequest SET state = 'granted', person_id = %(person)s, subscription_id = %(live)s WHERE id = %(declined)s",
        "UPDATE consents_consentrequest SET decided_at = now() WHERE id = %(declined)s",
    ],
    # deliveries and evidence
    "act_is_told_to_each_party_once": [
        "INSERT INTO consents_delivery (jti, txn, person_id, subscription_id, organization_id, role, event, goal, state, version, body, "
        "set_compact, overtaken, attempts, last_error, created_at, refusal) SELECT gen_random_uuid(), txn, person_id, subscription_id, "
        "organization_id, role, event, goal, 'manual', version, body, set_compact, false, 0, '', created_at, '' "
        "FROM consents_delivery WHERE id = %(delivery)s"
    ],
    "sent_delivery_knows_when": ["UPDATE consents_delivery SET state = 'sent' WHERE id = %(delivery)s"],
    "received_delivery_knows_when": [
        "UPDATE consents_delivery SET state = 'received' WHERE id = %(delivery)s"
    ],
    "stopped_delivery_knows_when": ["UPDATE consents_delivery SET state = 'stopped' WHERE id = %(delivery)s"],
    "erased_delivery_knows_when": ["UPDATE consents_delivery SET state = 'erased' WHERE id = %(delivery)s"],
    "waiting_delivery_knows_its_next_try": [
        "UPDATE consents_delivery SET state = 'queued', next_at = NULL WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET state = 'retrying', next_at = NULL WHERE id = %(delivery)s",
    ],
    "delivery_goes_forward": [
        f"UPDATE consents_delivery SET state = '{back}', next_at = now() WHERE id = %(stopped)s"
        for back in ("queued", "retrying", "dead", "manual", "checking", "sent", "received")
    ],
    "delivery_message_is_fixed": [
        "UPDATE consents_delivery SET jti = gen_random_uuid() WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET txn = gen_random_uuid() WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET organization_id = %(source)s WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET body = '{}' WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET set_compact = 'a.b.c' WHERE id = %(delivery)s",
        "UPDATE consents_delivery SET goal = 'erased' WHERE id = %(delivery)s",
    ],
    "evidence_id_is_used_once_per_organization": [
        "INSERT INTO consents_evidence (jti, organization_id, delivery_id, status, means, digest, document, report_url, stated_at, "
        "received_at) SELECT jti, organization_id, delivery_id, 'erased', means, digest, 'other', '', now(), now() "
        "FROM consents_evidence WHERE id = %(evidence)s"
    ],
    "evidence_has_a_digest": [
        "INSERT INTO consents_evidence (jti, organization_id, delivery_id, status, means, digest, document, report_url, stated_at, "
        "received_at) SELECT 'another', organization_id, delivery_id, status, means, 'md5:0', document, '', now(), now() "
        "FROM consents_evidence WHERE id = %(evidence)s"
    ],
    "consents_evidence_is_append_only": [
        "UPDATE consents_evidence SET digest = 'sha256:1' WHERE id = %(evidence)s",
        "DELETE FROM consents_evidence WHERE id = %(evidence)s",
    ],
    # notices, traces, answers kept for a day
    "notice_is_open_once_per_matter": [
        "INSERT INTO consents_notice (id, person_id, kind, matter, reason_ko, reason_en, urgent, raised_at, answer) "
        "SELECT gen_random_uuid(), person_id, kind, matter, 'a', 'a', false, now(), '' FROM consents_notice WHERE id = %(notice)s"
    ],
    "answered_notice_knows_when": [
        "UPDATE consents_notice SET answer = 'kept' WHERE id = %(notice)s",
        "UPDATE consents_notice SET answered_at = now() WHERE id = %(notice)s",
    ],
    "notice_gives_its_reason": [
        "UPDATE consents_notice SET reason_ko = '' WHERE id = %(notice)s",
        "UPDATE consents_notice SET reason_en = '' WHERE id = %(notice)s",
    ],
    "lookup_has_case_and_reason": [
        'INSERT INTO consents_lookup (id, person_id, by_id, event_id, "case", reason, at) '
        "VALUES (gen_random_uuid(), %(person)s, %(admin)s, gen_random_uuid(), '', 'because', now())",
        'INSERT INTO consents_lookup (id, person_id, by_id, event_id, "case", reason, at) '
        "VALUES (gen_random_uuid(), %(person)s, %(admin)s, gen_random_uuid(), '2026-1', '', now())",
    ],
    "consents_delivery_is_never_deleted": ["DELETE FROM consents_delivery WHERE id = %(delivery)s"],
    "person_key_outlives_its_disclosures": ["DELETE FROM consents_personkey WHERE person_id = %(person)s"],
    "person_key_is_fixed": ["UPDATE consents_personkey SET wrapped = 'x' WHERE person_id = %(person)s"],
    "closed_person_cannot_sign_in": ["UPDATE consents_person SET closed_at = now() WHERE id = %(person)s"],
    "person_closed_stays_closed": [
        "UPDATE consents_person SET closed_at = now() + interval '1 day' WHERE id = %(gone)s"
    ],
    "consents_lookup_is_append_only": [
        "UPDATE consents_lookup SET reason = 'another' WHERE id = %(lookup)s",
        "DELETE FROM consents_lookup WHERE id = %(lookup)s",
    ],
    "idempotency_key_is_used_once_per_caller": [
        "INSERT INTO consents_idempotencykey (actor, key, method, path, digest, location, created_at) "
        "VALUES ('person:1', 'k', 'POST', '/', '', '', now())"
    ],
    "idempotency_key_is_not_empty": [
        "UPDATE consents_idempotencykey SET key = ''",
        "UPDATE consents_idempotencykey SET actor = ''",
    ],
    "inbound_message_counts_once": [
        "INSERT INTO consents_inboundmessage (organization_id, jti, digest, at) "
        "SELECT organization_id, jti, 'other', now() FROM consents_inboundmessage"
    ],
    # the log
    "event_entry_check": [
        "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (gen_random_uuid(), 'x', 'consent.granted')",
        "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (gen_random_uuid(), repeat('x', 65536)::bytea, 'consent.granted')",
    ],
    "event_event_type_check": [
        "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (gen_random_uuid(), '{}', 'Something else')"
    ],
    "event_leaf_hash_key": [
        "INSERT INTO ledger.event (event_id, entry, event_type) SELECT gen_random_uuid(), entry, event_type FROM ledger.event "
        "WHERE event_id = %(event)s"
    ],
    "leaf_leaf_index_check": [
        "INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) VALUES (-1, gen_random_uuid(), sha256('x'))"
    ],
    "leaf_leaf_hash_check": [
        "INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) VALUES (0, gen_random_uuid(), 'short')"
    ],
    "leaf_event_id_key": [
        "WITH one AS (SELECT gen_random_uuid() AS id) INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) "
        "SELECT 900000000 + n, id, sha256('x') FROM one, generate_series(0, 1) n"
    ],
    "checkpoint_tree_size_check": [
        "INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (-1, sha256('x'), 'x')"
    ],
    "checkpoint_root_hash_check": [
        "INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (0, 'short', 'x')"
    ],
    "promise_leaf_hash_check": [
        "INSERT INTO ledger.promise (event_id, leaf_hash, due_at) VALUES (gen_random_uuid(), 'short', now())"
    ],
    # stops on their way
    "dead_delivery_knows_since_when": ["UPDATE consents_delivery SET state = 'dead' WHERE id = %(delivery)s"],
    "reference_is_known_once": [
        "INSERT INTO consents_reference (organization_id, person_id, kind, digest, sealed, created_at) "
        "SELECT organization_id, person_id, kind, digest, 'x', now() FROM consents_reference WHERE id = %(reference)s"
    ],
    "open_breaker_knows_until_when": [
        "UPDATE consents_breaker SET state = 'open', open_until = NULL WHERE channel_id = %(channel)s"
    ],
    "escalation_is_told_once": [
        "INSERT INTO consents_escalation (delivery_id, step, at) SELECT delivery_id, step, now() FROM consents_escalation"
    ],
    "transfer_is_reported_once": [
        "INSERT INTO consents_transfer (organization_id, key, person_id, subscription_id, recipient_id, scopes, regular, "
        "after_stop, at, reported_at) SELECT organization_id, key, person_id, subscription_id, recipient_id, scopes, regular, "
        "after_stop, at, reported_at FROM consents_transfer"
    ],
    "transfer_has_a_key": ["UPDATE consents_transfer SET key = ''"],
    "week_is_counted_once_per_side": [
        "INSERT INTO consents_weeklycount (organization_id, week_on, service_id, source_id, consents_new, consents_revoked, "
        "consents_own, reported_at) SELECT organization_id, week_on, service_id, source_id, 0, 0, 0, now() "
        "FROM consents_weeklycount"
    ],
    "week_begins_on_a_sunday": ["UPDATE consents_weeklycount SET week_on = '2026-11-23'"],
    "person_is_asked_about_once": [
        "WITH pair AS (SELECT person_id, organization_id FROM consents_delivery LIMIT 1) "
        "INSERT INTO consents_inquiry (person_id, organization_id, outcome, held, differences) "
        "SELECT person_id, organization_id, 'waiting', 0, 0 FROM pair, generate_series(1, 2)"
    ],
    "case_is_open_once_per_matter": [
        "INSERT INTO consents_case (id, kind, organization_id, matter, stated, known, opened_at, verb, reason) "
        "SELECT gen_random_uuid(), kind, organization_id, matter, '{}', '{}', now(), '', '' FROM consents_case"
    ],
    "settled_case_knows_how": [
        "UPDATE consents_case SET verb = 'adopt'",
        "UPDATE consents_case SET settled_at = now()",
    ],
    # files, who people are, and what waits for them
    "identity_is_a_digest": ["UPDATE consents_identity SET digest = 'the CI itself'"],
    "waiting_holding_has_scopes_and_an_end": [
        "UPDATE consents_waitingholding SET scopes = '{}'",
        "UPDATE consents_waitingholding SET end_date = joined_on",
    ],
    "upload_is_read_as_far_as_it_is_here": [
        "UPDATE consents_upload SET read_to = 11",
        "UPDATE consents_upload SET read_to = -1",
    ],
    "upload_is_no_longer_than_it_said": ["UPDATE consents_upload SET total = received - 1"],
    "upload_finishes_with_a_date": [
        "UPDATE consents_upload SET state = 'done'",
        "UPDATE consents_upload SET finished_at = now()",
    ],
    "upload_part_is_there_once": [
        "INSERT INTO consents_uploadpart (upload_id, start, size, sealed) SELECT upload_id, start, 1, 'x' FROM consents_uploadpart"
    ],
    "upload_row_is_refused_once": [
        'INSERT INTO consents_uploadrefusal (upload_id, number, "column", code, "values") '
        "SELECT upload_id, number, '', 'x', '{}' FROM consents_uploadrefusal"
    ],
    "counting_code_is_used_by_a_company": ["UPDATE consents_countingcode SET used_at = now()"],
    "counting_code_expires_after_it_is_made": ["UPDATE consents_countingcode SET expires_at = made_at"],
    # changes of channels, and the gym
    "channel_change_is_approved_by_somebody_else": [
        "UPDATE consents_channelchange SET approved_by_id = asked_by_id, approved_at = now()"
    ],
    "approved_channel_change_knows_by_whom": ["UPDATE consents_channelchange SET state = 'approved'"],
    "organization_changes_one_channel_at_a_time": [
        "INSERT INTO consents_channelchange (id, organization_id, channel_id, state, asked_by_id, asked_at) "
        "SELECT gen_random_uuid(), organization_id, channel_id, 'asked', asked_by_id, now() FROM consents_channelchange"
    ],
    "passed_gym_run_is_finished": ["UPDATE consents_gymrun SET passed = true"],
}

# trigger → constraint names it refuses with, or the error code where it names none (see test_ledger.py for those)
TRIGGERS: dict[tuple[str, str], set[str]] = {
    ("consents_subscription", "a_ended_stays_ended"): {
        "consents_subscription_ended_stays_ended", "consents_subscription_erasure_goes_forward",
        "consents_subscription_version_rises",
    },
    ("consents_consent", "a_ended_stays_ended"): {
        "consents_consent_ended_stays_ended", "consents_consent_erasure_goes_forward",
        "consents_consent_version_rises",
    },
    ("consents_delivery", "a_goes_forward"): {"delivery_goes_forward"},
    ("consents_delivery", "a_message_is_fixed"): {"delivery_message_is_fixed"},
    # these refuse nothing, they keep the queue: test_queue.py
    **{("consents_delivery", f"keep_outgoing_{when}"): set() for when in ("new", "moved", "gone")},
    ("consents_consentrequest", "a_decided_once"): {"consent_request_is_decided_once"},
    ("providers_terms", "a_never_change"): {"published_terms_never_change"},
    ("providers_termsitem", "a_never_change"): {"published_items_never_change"},
    ("consents_evidence", "a_append_only"): {"consents_evidence_is_append_only"},
    ("consents_lookup", "a_append_only"): {"consents_lookup_is_append_only"},
    ("providers_licence", "a_append_only"): {"providers_licence_is_append_only"},
    # tests/consents/ledger/test_erasing.py shows where these let go, and every link that refuses before
    ("consents_subscription", "b_goes_with_its_person"): {"consents_subscription_is_never_deleted"},
    ("consents_consent", "b_goes_with_its_person"): {"consents_consent_is_never_deleted"},
    ("consents_delivery", "b_goes_with_its_person"): {"consents_delivery_is_never_deleted"},
    ("consents_evidence", "b_goes_with_its_person"): {"consents_evidence_is_append_only"},
    ("consents_lookup", "b_goes_with_its_person"): {"consents_lookup_is_append_only"},
    ("consents_personkey", "a_outlives"): {"person_key_outlives_its_disclosures", "person_key_is_fixed"},
    ("consents_person", "a_stays_closed"): {"person_closed_stays_closed"},
}  # fmt: skip
# Their refusals are in test_ledger.py; `z_enqueue` refuses nothing, it keeps the list that the sequencer reads.
LEDGER_TRIGGERS = {
    ("event", "a_no_row"), ("event", "a_no_stmt"), ("event", "z_enqueue"), ("disclosure", "a_no_upd"), ("disclosure", "b_hold"),
    # and in ledger/test_sequencer.py
    ("leaf", "a_no_row"), ("leaf", "a_no_stmt"), ("leaf", "b_dense"), ("cosignature", "a_no_row"), ("cosignature", "a_no_stmt"),
    ("checkpoint", "a_no_row"), ("checkpoint", "a_no_stmt"), ("checkpoint", "b_rises"),
}  # fmt: skip


@pytest.fixture
def rows(person, me, now) -> dict:
    """Ids of one row of everything, told through the domain."""
    service = factories.offered()
    live = factories.joined(person, service, at=now)
    retired = live.terms
    factories.TermsFactory(service=service)
    terms = service.terms.get(state="published")
    other, ended, erased = (factories.joined(person, at=now) for _ in range(3))
    lifecycle.leave(ended, erase=True, by=me, at=now)
    lifecycle.leave(erased, erase=True, by=me, at=now)
    type(erased).objects.filter(pk=erased.pk).update(erasure="confirmed", erasure_confirmed_at=now)
    transfers = list(live.consents.filter(kind="transfer").order_by("id"))
    withdrawn = lifecycle.withdraw(other.consents.filter(kind="transfer").first(), erase=True, by=me, at=now)
    delivery = live.deliveries.get(role="operator")
    stopped = ended.deliveries.get(role="operator", event="subscription-ended")
    type(stopped).objects.filter(pk=stopped.pk).update(
        state="stopped", sent_at=now, received_at=now, stopped_at=now
    )
    proof = Evidence.objects.create(
        jti="e-1", organization=stopped.organization, delivery=stopped, status="stopped", means="desk",
        digest="sha256:0", document="{}", stated_at=now, received_at=now,
    )  # fmt: skip
    channel = factories.ChannelFactory(organization=service.organization)
    for kid in ("one", "two"):
        ChannelKey.objects.create(channel=channel, kind="hmac", kid=kid, sealed_secret=b"x", active_from=now)
    clients.make(service.organization, scopes=["deliveries:ack"], by=me, at=now)
    clients.retire(service.organization.api_client, by=me, at=now)
    link, _secret = clients.make(service.organization, scopes=["deliveries:ack"], by=me, at=now)
    clients.rotate(link, days=90, by=me, at=now)
    keysets.register(service.organization, keys=[{"kid": "k"}], at=now)
    for effective_on in ("2020-01-01", "2026-01-01"):
        PolicyRule.objects.get_or_create(
            key="TEST", effective_on=effective_on, defaults={"value": 1, "unit": "days", "source": "a test"}
        )
    admin = factories.MemberFactory(organization=service.organization).person
    asked = {"organization": service.organization, "service": service, "terms": terms, "lodged_at": now}
    asked["expires_at"] = now + datetime.timedelta(minutes=10)
    notice = Notice.objects.create(
        person=person, kind="count", matter="soft", reason_ko="이유", reason_en="Why", raised_at=now
    )
    seen = Lookup.objects.create(
        person=person, by=admin, event_id=person.pk, case="2026-1", reason="because", at=now
    )
    IdempotencyKey.objects.create(
        actor="person:1", key="k", method="POST", path="/", digest="", created_at=now
    )
    reference = references.note(service.organization, person, kind="grant", identifier="g-1", by=me, at=now)
    Breaker.objects.create(channel=channel, changed_at=now)
    Escalation.objects.create(delivery=delivery, step="not_sent", at=now)
    flow = {
        "organization": service.organization,
        "recipient": service.organization,
        "at": now,
        "reported_at": now,
    }
    Transfer.objects.create(key="t-1", person=person, subscription=live, **flow)
    counted = WeeklyCount.objects.create(
        organization=service.organization, week_on="2026-11-22", service=service, source=transfers[0].source,
        consents_new=1, consents_revoked=0, consents_own=1, reported_at=now,
    )  # fmt: skip
    WeeklyCalls.objects.create(count=counted, kind="1", succeeded=1, failed=0, days=[])
    DirectoryEntry.objects.create(organization=service.organization)
    Identity.objects.create(person=person, digest="0" * 64, provider="test", verified_at=now)
    WaitingHolding.objects.create(
        digest="0" * 64, service=service, source=transfers[0].source, joined_on="2026-01-01", scopes=["bank.list"], purpose="p",
        end_date="2027-01-01", reported_at=now,
    )  # fmt: skip
    upload = Upload.objects.create(
        organization=service.organization,
        kind="holdings",
        format="csv",
        received=10,
        opened_at=now,
        touched_at=now,
    )
    UploadPart.objects.create(upload=upload, start=0, size=10, sealed=b"x")
    UploadRefusal.objects.create(upload=upload, number=2, column="subject", code="empty")
    CountingCode.objects.create(
        person=person, digest="0" * 64, made_at=now, expires_at=now + datetime.timedelta(minutes=1)
    )
    Case.objects.create(kind="counts", organization=service.organization, matter="m", opened_at=now)
    moved = {"organization": service.organization, "channel": channel, "asked_by": admin, "asked_at": now}
    ChannelChange.objects.create(**moved)
    GymRun.objects.create(**moved, address="https://x.example/")
    InboundMessage.objects.create(organization=service.organization, jti="in-1", digest="", at=now)
    with transaction.atomic():
        (entry,) = ledger.append([Fact("person.erased", fields={"cnt": 1})], by=Actor.system("test"), at=now)
    return {
        "owner": service.organization_id, "source": transfers[0].source_id, "licence": service.organization.licences.get().pk, "scope": Scope.objects.first().pk,
        "service": service.pk, "terms": terms.pk, "retired": retired.pk, "draft": factories.TermsFactory(service=service, published=False).pk,
        "channel": channel.pk, "testing_channel": factories.ChannelFactory(organization=service.organization, state="testing").pk,
        "person": person.pk, "admin": admin.pk, "live": live.pk, "other": other.pk, "ended": ended.pk, "erased": erased.pk,
        "consent": transfers[0].pk, "consent_source": transfers[0].source_id, "item": transfers[0].terms_item_id,
        "second": transfers[1].pk, "withdrawn": withdrawn.pk, "delivery": delivery.pk, "stopped": stopped.pk, "evidence": proof.pk,
        "pending": ConsentRequest.objects.create(**asked).pk,
        "declined": ConsentRequest.objects.create(**asked, state="declined", decided_at=now - datetime.timedelta(minutes=1)).pk,
        "reference": reference.pk, "notice": notice.pk, "lookup": seen.pk, "event": entry.event_id,
        "gone": factories.PersonFactory(is_active=False, closed_at=now).pk,
    }  # fmt: skip


def test_the_database_refuses(rows, subtests):
    for name, statements in REFUSED.items():
        with subtests.test(name):
            for statement in statements:
                assert refusal(statement, rows) == name, statement


def refusal(statement: str, rows: dict) -> str:
    """The constraint that refuses the statement; words where nothing does."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, rows)
            return f"nobody refuses; {cursor.rowcount} rows"
    except IntegrityError as error:
        return error.__cause__.diag.constraint_name


def test_every_named_constraint_has_a_case():
    models = [*apps.get_app_config("providers").get_models(), *apps.get_app_config("consents").get_models()]
    declared = {constraint.name for model in models for constraint in model._meta.constraints}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE connamespace = 'ledger'::regnamespace AND contype IN ('c', 'u', 'x')"
        )
        declared |= {name for (name,) in cursor.fetchall()}
    named_by_triggers = set().union(*TRIGGERS.values())
    assert declared | named_by_triggers == set(REFUSED)


def test_every_constraint_that_is_declared_is_there():
    """A constraint in the models that no migration made would be a promise only."""
    models = [*apps.get_app_config("providers").get_models(), *apps.get_app_config("consents").get_models()]
    declared = {constraint.name for model in models for constraint in model._meta.constraints}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION SELECT relname FROM pg_class JOIN pg_index ON oid = indexrelid WHERE indisunique"
        )
        assert declared <= {name for (name,) in cursor.fetchall()}


def test_every_trigger_has_a_case():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.nspname, c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal"
        )
        found = cursor.fetchall()
    assert {(table, name) for schema, table, name in found if schema == "public"} == set(TRIGGERS)
    assert {(table, name) for schema, table, name in found if schema == "ledger"} == LEDGER_TRIGGERS


ALL = sorted(
    {*(table for table, _name in TRIGGERS), *(f"ledger.{table}" for table, _name in LEDGER_TRIGGERS)}
)


@pytest.mark.parametrize("table", ALL)
def test_a_session_that_switches_triggers_off_does_not_switch_off_these(table):
    """`session_replication_role = replica`, as restore tools set it, leaves `ENABLE ALWAYS` triggers on."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgenabled FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
        )
        assert {enabled for (enabled,) in cursor.fetchall()} == {"A"}


def test_a_refused_erasure_may_be_asked_for_again(rows):
    """The one way back that the law leaves: the ground for keeping is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE consents_subscription SET erasure = 'refused', erasure_refusal = '상법 33조' WHERE id = %(ended)s",
            rows,
        )
        cursor.execute("UPDATE consents_subscription SET erasure = 'requested' WHERE id = %(ended)s", rows)
        assert cursor.rowcount == 1
