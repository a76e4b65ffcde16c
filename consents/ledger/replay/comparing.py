"""The tables as an entry would disclose them, beside what the log gave: every row, every column that the log knows."""

# ruff: noqa: S608 - statements put together from the constants below, never from anything given

from django.db import connection

from providers import vault

from .findings import MOST, Difference, Findings

# Columns that the log does not carry, each with its reason.
NOT_IN_THE_LOG = {
    "consents_subscription": {
        "last_used_on": "what an operator tells about use is no act; it only ever moves forward",
        "last_transfer_at": "as last_used_on",
    },
    "consents_consent": {},
    "consents_delivery": {
        "id": "a counter of the queue; `jti` is the name that others know",
        "body": "the message itself, signed; its SET names the leaf of the act's entry",
        "set_compact": "as body",
        "attempts": "the queue's own bookkeeping: tries that changed nothing are not told",
        "next_at": "as attempts",
        "not_before": "as attempts",
        "key_fault_at": "as attempts",
        "http_status": "as attempts",
        "last_error": "as attempts",
        "handle": "what the other side calls the stop; needed to ask again, and no fact about the person",
        "check_at": "as attempts, of our own looks; what a look finds is told",
        "checks": "as check_at",
        "offered_at": "as attempts, of the poll",
        "dead_at": "that it was given up is told; since when the daily tries count is the queue's",
        "replay_of_id": "a replay is the same message once more; rows with it are not compared",
        "due_at": "a deadline, counted from created_at by the dated policy",
    },
}


def _moment(column: str) -> str:
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_PERSON = "LEFT JOIN replay_person ON (replay_person.person_id, replay_person.operator_id) = (t.person_id, {operator}.operator_id)"

_SUBSCRIPTION = f"""
SELECT t.id::text AS id, replay_person.sub AS person, coalesce(service.client_id, t.service_id::text) AS service,
  coalesce(operator.code, t.operator_id::text) AS operator,
  t.terms_id::text AS terms, t.language, t.text_digest, t.origin, t.state, {_moment("joined_at")} AS joined_at,
  until_on::text AS until_on, {_moment("ended_at")} AS ended_at, end_reason, erasure,
  {_moment("erasure_requested_at")} AS erasure_requested_at, {_moment("erasure_confirmed_at")} AS erasure_confirmed_at,
  erasure_refusal, t.version::text AS version
FROM consents_subscription AS t {_PERSON.format(operator="t")}
LEFT JOIN providers_service AS service ON service.id = t.service_id
LEFT JOIN providers_organization AS operator ON operator.id = t.operator_id
"""

_CONSENT = f"""
SELECT t.id::text AS id, replay_person.sub AS person, t.subscription_id::text AS subscription,
  t.terms_item_id::text AS terms_item, kind, required::text AS required, coalesce(source.code, t.source_id::text) AS source,
  coalesce(recipient.code, t.recipient_id::text) AS recipient,
  to_jsonb(scopes)::text AS scopes, to_jsonb(riders)::text AS riders, cycle, purpose_ko, purpose_en, retention_ko,
  retention_en, t.until_on::text AS until_on, retained_until::text AS retained_until, paid::text AS paid, t.state,
  {_moment("granted_at")} AS granted_at, {_moment("paused_at")} AS paused_at, paused_until::text AS paused_until,
  {_moment("t.ended_at")} AS ended_at, t.end_reason, t.erasure, {_moment("t.erasure_requested_at")} AS erasure_requested_at,
  {_moment("t.erasure_confirmed_at")} AS erasure_confirmed_at, t.erasure_refusal, t.version::text AS version
FROM consents_consent AS t LEFT JOIN consents_subscription AS held ON held.id = t.subscription_id
{_PERSON.format(operator="held")}
LEFT JOIN providers_organization AS source ON source.id = t.source_id
LEFT JOIN providers_organization AS recipient ON recipient.id = t.recipient_id
"""

# Tries are not logged, nor how somebody is reached at the moment: a delivery that waits for its turn, for its next try or
# for a human is waiting. A replay is the same message once more and has no life of its own.
_DELIVERY = f"""
SELECT jti::text AS id, txn::text AS txn, replay_person.sub AS person, t.subscription_id::text AS subscription,
  t.consent_id::text AS consent, coalesce(told.code, t.organization_id::text) AS organization, role, event, goal,
  CASE WHEN t.state NOT IN ('queued', 'retrying', 'manual', 'checking') OR overtaken THEN t.state
    WHEN t.dead_at IS NOT NULL THEN 'dead' ELSE 'waiting' END AS state,
  t.version::text AS version, overtaken::text AS overtaken, {_moment("created_at")} AS created_at,
  {_moment("sent_at")} AS sent_at, {_moment("received_at")} AS received_at, {_moment("stopped_at")} AS stopped_at,
  {_moment("erased_at")} AS erased_at, {_moment("refused_at")} AS refused_at, refusal, {_moment("closed_at")} AS closed_at
FROM consents_delivery AS t LEFT JOIN consents_subscription AS held ON held.id = t.subscription_id
{_PERSON.format(operator="held")}
LEFT JOIN providers_organization AS told ON told.id = t.organization_id
WHERE t.replay_of_id IS NULL
"""

_KEPT = {
    "consents_subscription": ("replay_subscription", _SUBSCRIPTION),
    "consents_consent": ("replay_consent", _CONSENT),
    "consents_delivery": ("replay_delivery", _DELIVERY),
}

_DIFFERENT = """
WITH kept AS ({kept}), pair AS (
  SELECT coalesce(logged.id, kept.id) AS id, to_jsonb(logged) AS said, to_jsonb(kept) AS stands
  FROM {logged} AS logged FULL JOIN kept ON kept.id = logged.id
), apart AS (
  SELECT * FROM pair WHERE said IS DISTINCT FROM stands
), difference AS (
  SELECT id, name, said->>name AS said, stands->>name AS stands FROM apart CROSS JOIN LATERAL jsonb_object_keys(said) AS name
  WHERE stands IS NOT NULL AND said->>name IS DISTINCT FROM stands->>name
  UNION ALL
  SELECT id, 'row', CASE WHEN said IS NOT NULL THEN 'is there' END, CASE WHEN stands IS NOT NULL THEN 'is there' END
  FROM apart WHERE said IS NULL OR stands IS NULL
)
SELECT (SELECT count(*) FROM difference), id, name, said, stands FROM difference ORDER BY id, name LIMIT {most}
"""

# What no row can show: something said twice, or of nothing that began.
_CONTRADICTIONS = """
SELECT 'entry' AS kind, min(event_id), 'begins again what had begun', coalesce(con, sbs) FROM replay_said
WHERE typ IN ('subscription.joined', 'consent.granted') GROUP BY typ, coalesce(con, sbs) HAVING count(*) > 1
UNION ALL
SELECT 'entry', min(event_id), 'ends again what had ended', coalesce(con, sbs) FROM replay_said
WHERE typ IN ('subscription.ended', 'consent.withdrawn', 'consent.expired') GROUP BY coalesce(con, sbs) HAVING count(*) > 1
UNION ALL
SELECT 'entry', event_id, 'speaks of a subscription that never began', sbs FROM replay_said
WHERE sbs IS NOT NULL AND typ NOT LIKE 'notice.%' AND NOT EXISTS (SELECT 1 FROM replay_subscription WHERE id = sbs)
UNION ALL
SELECT 'entry', event_id, 'speaks of a consent that never began', con FROM replay_said
WHERE con IS NOT NULL AND NOT EXISTS (SELECT 1 FROM replay_consent WHERE id = con)
UNION ALL
SELECT 'entry', event_id, 'speaks of a delivery that nobody owed', jti FROM replay_said
WHERE jti IS NOT NULL AND NOT EXISTS (SELECT 1 FROM replay_delivery WHERE id = jti)
"""


def name_people() -> None:
    """The pairwise pseudonym of every person towards every operator that they have a row with."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE replay_person (person_id uuid, operator_id uuid, sub text) ON COMMIT DROP"
        )
    with connection.chunked_cursor() as pairs:
        pairs.execute("SELECT DISTINCT person_id, operator_id FROM consents_subscription")
        while batch := pairs.fetchmany(4096):
            with (
                connection.connection.cursor() as cursor,
                cursor.copy("COPY replay_person FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(("uuid", "uuid", "text"))
                for person_id, operator_id in batch:
                    copy.write_row(
                        (person_id, operator_id, vault.pseudonym(str(operator_id), str(person_id)))
                    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE replay_person")


def compare(found: Findings) -> dict[str, int]:
    """How many rows of each table were compared; differences go into `found`."""
    counted = {}
    with connection.cursor() as cursor:
        for table, (logged, kept) in _KEPT.items():
            cursor.execute(_DIFFERENT.format(logged=logged, kept=kept, most=MOST))
            rows = cursor.fetchall()
            found.note(rows[0][0] if rows else 0, [Difference(table, *row[1:]) for row in rows])
            cursor.execute(
                f"SELECT greatest((SELECT count(*) FROM {logged}), (SELECT count(*) FROM {table}))"
            )
            counted[table] = cursor.fetchone()[0]
        cursor.execute(_CONTRADICTIONS)
        for table, key, what, of in cursor:
            found.add(table, key, what, of, None)
    return counted
