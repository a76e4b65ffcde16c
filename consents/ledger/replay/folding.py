"""What the entries say, folded into rows: one text per column, as an entry would disclose it."""

from django.db import connection

from consents import messages

# A delivery is owed by the entry of its act; the act is the event that the message tells of.
EVENTS = {
    "subscription.joined": messages.CONSENT_GRANTED,
    "consent.amended": messages.CONSENT_AMENDED,
    "consent.paused": messages.CONSENT_PAUSED,
    "consent.resumed": messages.CONSENT_RESUMED,
    "consent.withdrawn": messages.CONSENT_WITHDRAWN,
    "subscription.ended": messages.SUBSCRIPTION_ENDED,
    "erasure.requested": messages.ERASURE_REQUESTED,
}

_SAID = """
CREATE TEMPORARY TABLE replay_said (
  place bigint, event_id text, typ text, at text, txn text, sub text, sbs text, con text, jti text, said jsonb
) ON COMMIT DROP
"""

# Each erasure by the row it reaches: asked at, confirmed at, refused with; the last word is its state. Where it was found
# undone it is asked again, and what was confirmed before counts no more.
_ERASURE = """
CREATE TEMPORARY TABLE replay_erasure ON COMMIT DROP AS
WITH word AS (
  SELECT reached.id, place, at, said, CASE WHEN typ IN ('delivery.contradicted', 'transfer.contradicted') THEN 'undone' ELSE typ END AS typ
  FROM replay_said CROSS JOIN LATERAL jsonb_array_elements_text(said->'ids') AS reached(id)
  WHERE typ IN ('erasure.requested', 'erasure.confirmed', 'erasure.refused', 'delivery.contradicted', 'transfer.contradicted')
    AND jsonb_typeof(said->'ids') = 'array'
), told AS (
  SELECT *, max(place) FILTER (WHERE typ = 'undone') OVER (PARTITION BY id) AS undone FROM word
)
SELECT id,
  CASE (array_agg(typ ORDER BY place DESC))[1] WHEN 'erasure.confirmed' THEN 'confirmed'
    WHEN 'erasure.refused' THEN 'refused' ELSE 'requested' END AS erasure,
  (array_agg(at ORDER BY place DESC) FILTER (WHERE typ = 'erasure.requested'))[1] AS asked,
  (array_agg(at ORDER BY place DESC) FILTER (WHERE typ = 'erasure.confirmed' AND place > coalesce(undone, -1)))[1] AS confirmed,
  (array_agg(left(said->>'bas', 300) ORDER BY place DESC) FILTER (WHERE typ = 'erasure.refused'))[1] AS refusal
FROM told GROUP BY id
"""

_SUBSCRIPTION = """
CREATE TEMPORARY TABLE replay_subscription ON COMMIT DROP AS
WITH joined AS (
  SELECT DISTINCT ON (sbs) sbs, sub, said FROM replay_said WHERE typ = 'subscription.joined' ORDER BY sbs, place
), ended AS (
  SELECT DISTINCT ON (sbs) sbs, at, said->>'rsn' AS reason FROM replay_said WHERE typ = 'subscription.ended' ORDER BY sbs, place
), latest AS (
  SELECT DISTINCT ON (sbs) sbs, coalesce(said->'sbv'->>0, said->>'ver') AS version
  FROM replay_said
  WHERE typ IN ('subscription.joined', 'subscription.ended', 'erasure.requested') OR said ? 'sbv'
  ORDER BY sbs, place DESC
), until AS (
  SELECT DISTINCT ON (sbs) sbs, coalesce(said->'sbv'->>1, said->>'prd') AS until_on
  FROM replay_said WHERE typ IN ('subscription.joined', 'subscription.ended') OR said ? 'sbv' ORDER BY sbs, place DESC
)
SELECT joined.sbs AS id, joined.sub AS person, said->>'svc' AS service, said->>'opr' AS operator, said->>'tms' AS terms,
  said->>'lng' AS language, said->>'trm' AS text_digest, said->>'org' AS origin,
  CASE WHEN ended.sbs IS NULL THEN 'active' ELSE 'ended' END AS state,
  said->>'bgn' AS joined_at, until_on, ended.at AS ended_at, coalesce(ended.reason, '') AS end_reason,
  coalesce(erasure, 'not_requested') AS erasure, asked AS erasure_requested_at, confirmed AS erasure_confirmed_at,
  coalesce(refusal, '') AS erasure_refusal, version
FROM joined LEFT JOIN ended USING (sbs) LEFT JOIN latest USING (sbs) LEFT JOIN until USING (sbs)
LEFT JOIN replay_erasure ON replay_erasure.id = joined.sbs
"""

_CONSENT = """
CREATE TEMPORARY TABLE replay_consent ON COMMIT DROP AS
WITH act AS (
  SELECT place, typ, at, sub, sbs, con, said FROM replay_said WHERE typ LIKE 'consent.%%' AND con IS NOT NULL
), granted AS (
  SELECT DISTINCT ON (con) con, sub, sbs, said->>'bgn' AS began, said->'wrd' AS words
  FROM act WHERE typ = 'consent.granted' ORDER BY con, place
), latest AS (
  SELECT DISTINCT ON (con) con, said FROM act ORDER BY con, place DESC
), moved AS (
  SELECT DISTINCT ON (con) con, typ, at, said FROM act
  WHERE typ <> 'consent.amended' ORDER BY con, place DESC
), paused AS (
  SELECT DISTINCT ON (con) con, typ, at, said->>'pun' AS until_on FROM act
  WHERE typ IN ('consent.paused', 'consent.resumed') ORDER BY con, place DESC
)
SELECT con AS id, granted.sub AS person, granted.sbs AS subscription, latest.said->>'itm' AS terms_item,
  latest.said->>'knd' AS kind, latest.said->>'req' AS required, latest.said->>'src' AS source, latest.said->>'rcp' AS recipient,
  (latest.said->'scp')::text AS scopes, (latest.said->'rid')::text AS riders, latest.said->>'cyc' AS cycle,
  latest.said->>'pur' AS purpose_ko, words->>0 AS purpose_en, words->>1 AS retention_ko, words->>2 AS retention_en,
  latest.said->>'prd' AS until_on, latest.said->>'ret' AS retained_until, latest.said->>'pai' AS paid,
  CASE WHEN ended THEN 'ended' WHEN moved.typ = 'consent.paused' THEN 'paused' ELSE 'active' END AS state,
  began AS granted_at,
  CASE WHEN paused.typ = 'consent.paused' THEN paused.at END AS paused_at,
  CASE WHEN moved.typ = 'consent.paused' THEN paused.until_on END AS paused_until,
  CASE WHEN ended THEN moved.at END AS ended_at,
  CASE WHEN ended THEN coalesce(moved.said->>'rsn', '') ELSE '' END AS end_reason,
  coalesce(erasure, 'not_requested') AS erasure, asked AS erasure_requested_at, confirmed AS erasure_confirmed_at,
  coalesce(refusal, '') AS erasure_refusal, latest.said->>'ver' AS version
FROM granted JOIN latest USING (con) JOIN moved USING (con) LEFT JOIN paused USING (con)
LEFT JOIN replay_erasure ON replay_erasure.id = con
CROSS JOIN LATERAL (SELECT moved.typ IN ('consent.withdrawn', 'consent.expired') AS ended) AS now
"""

_OWED = """
CREATE TEMPORARY TABLE replay_owed ON COMMIT DROP AS
SELECT place, duty->>0 AS jti, txn, sub, sbs, con, duty->>1 AS organization, duty->>2 AS role, duty->>3 AS goal,
  %(events)s::jsonb->>typ AS event, coalesce(said->'sbv'->>0, said->>'ver') AS version, at
FROM replay_said CROSS JOIN LATERAL jsonb_array_elements(said->'dlv') AS duty
WHERE jsonb_typeof(said->'dlv') = 'array'
"""

# A step reached is reached with all before it; a refusal to erase has stopped; an overtaken grant is closed. What
# contradicts a step undoes none: it may undo an erasure. What our look found first may be said by them later: no step goes
# back by it, and only that they received the message is never ours to say.
_STEP = """
CREATE TEMPORARY TABLE replay_step ON COMMIT DROP AS
SELECT place, jti, at, substr(typ, 10) AS state, left(said->>'bas', 300) AS basis,
  CASE typ WHEN 'delivery.sent' THEN 1 WHEN 'delivery.received' THEN 2 WHEN 'delivery.stopped' THEN 3
    WHEN 'delivery.erased' THEN 4 ELSE 0 END AS rank, false AS refused, false AS overtaken,
  typ = 'delivery.received' AND coalesce(said->>'mth', '') <> 'readback' AS spoken
FROM replay_said WHERE typ LIKE 'delivery.%%' AND typ <> 'delivery.contradicted'
UNION ALL
SELECT place, jti, at, 'stopped', left(said->>'bas', 300), 3, true, false, false
FROM replay_said WHERE typ = 'erasure.refused'
UNION ALL
SELECT place, pointless.jti, at, 'checking', NULL, 0, false, true, false
FROM replay_said CROSS JOIN LATERAL jsonb_array_elements_text(said->'ovt') AS pointless(jti)
WHERE jsonb_typeof(said->'ovt') = 'array'
"""

_DELIVERY = """
CREATE TEMPORARY TABLE replay_delivery ON COMMIT DROP AS
WITH owed AS (
  SELECT DISTINCT ON (jti) *, CASE goal WHEN 'received' THEN 2 WHEN 'stopped' THEN 3 ELSE 4 END AS aim
  FROM replay_owed ORDER BY jti, place
), steps AS (
  SELECT jti, (array_agg(step.state ORDER BY CASE WHEN rank >= 2 THEN rank ELSE 0 END DESC, step.place DESC))[1] AS state,
    (array_agg(step.at ORDER BY step.place) FILTER (WHERE rank >= 1))[1] AS sent_at,
    (array_agg(step.at ORDER BY spoken DESC, step.place) FILTER (WHERE rank >= 2))[1] AS received_at,
    (array_agg(step.at ORDER BY step.place) FILTER (WHERE rank >= 3))[1] AS stopped_at,
    (array_agg(step.at ORDER BY step.place) FILTER (WHERE rank >= 4))[1] AS erased_at,
    (array_agg(step.at ORDER BY step.place) FILTER (WHERE refused))[1] AS refused_at,
    (array_agg(step.basis ORDER BY step.place) FILTER (WHERE refused))[1] AS refusal,
    (array_agg(step.at ORDER BY rank DESC, step.place) FILTER (WHERE rank >= aim OR refused OR overtaken))[1] AS closed_at,
    coalesce(bool_or(overtaken), false) AS overtaken
  FROM owed LEFT JOIN replay_step AS step USING (jti) GROUP BY jti
)
SELECT jti AS id, txn, sub AS person, sbs AS subscription, con AS consent, organization, role, event, goal,
  coalesce(state, 'waiting') AS state, version,
  overtaken::text AS overtaken, at AS created_at, sent_at, received_at, stopped_at, erased_at, refused_at,
  coalesce(refusal, '') AS refusal, closed_at
FROM owed JOIN steps USING (jti)
"""

_TABLES = ("said", "erasure", "subscription", "consent", "owed", "step", "delivery", "person")


def prepare() -> None:
    """An empty table for what is read."""
    clear()
    with connection.cursor() as cursor:
        cursor.execute(_SAID)


def fold() -> None:
    """Rows of subscriptions, consents and deliveries, from what was read."""
    events = {"events": "{" + ", ".join(f'"{typ}": "{event}"' for typ, event in EVENTS.items()) + "}"}
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE replay_said")
        for statement in (_ERASURE, _SUBSCRIPTION, _CONSENT, _OWED, _STEP):
            cursor.execute(statement, events)
        cursor.execute("ANALYZE replay_owed; ANALYZE replay_step")
        cursor.execute(_DELIVERY)
        cursor.execute("ANALYZE replay_subscription; ANALYZE replay_consent; ANALYZE replay_delivery")


def clear() -> None:
    with connection.cursor() as cursor:
        for name in _TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS pg_temp.replay_{name}")
