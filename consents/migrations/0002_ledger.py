"""The log's tables and triggers: append-only in the database itself, also for its owner until a trigger is dropped.

Core functions only (no extension), so that it runs on the embedded PostgreSQL and without superuser rights.
"""

from django.db import migrations

LEDGER = r"""
CREATE SCHEMA ledger;
CREATE TABLE ledger.event (
  event_id   uuid PRIMARY KEY,
  entry      bytea NOT NULL CHECK (octet_length(entry) BETWEEN 2 AND 65535),
  leaf_hash  bytea NOT NULL GENERATED ALWAYS AS (sha256('\x00'::bytea || entry)) STORED,
  event_type text NOT NULL CHECK (event_type ~ '^[a-z]+(\.[a-z_]+)+$'),
  xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (leaf_hash)
);
CREATE TABLE ledger.pending (
  event_id uuid PRIMARY KEY REFERENCES ledger.event,
  enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE ledger.disclosure (
  event_id uuid NOT NULL REFERENCES ledger.event,
  name text NOT NULL,
  digest text NOT NULL,
  ciphertext bytea NOT NULL,
  subject_key_id uuid,
  retain_until timestamptz NOT NULL,
  PRIMARY KEY (event_id, name)
);
CREATE INDEX disclosure_of_a_person ON ledger.disclosure (subject_key_id) WHERE subject_key_id IS NOT NULL;

CREATE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on %.% refused: append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = '23L01';
END $$;
CREATE TRIGGER a_no_row BEFORE UPDATE OR DELETE ON ledger.event FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER a_no_stmt BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER a_no_row;
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER a_no_stmt;
CREATE TRIGGER a_no_upd BEFORE UPDATE OR TRUNCATE ON ledger.disclosure FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
ALTER TABLE ledger.disclosure ENABLE ALWAYS TRIGGER a_no_upd;

CREATE FUNCTION ledger.legal_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.retain_until > clock_timestamp() THEN
    RAISE EXCEPTION 'legal hold until %', OLD.retain_until USING ERRCODE = '23L06';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER b_hold BEFORE DELETE ON ledger.disclosure FOR EACH ROW EXECUTE FUNCTION ledger.legal_hold();
ALTER TABLE ledger.disclosure ENABLE ALWAYS TRIGGER b_hold;

-- The sequencer reads `pending`, never an id or a time: two writers that commit out of order are both seen.
CREATE FUNCTION ledger.enqueue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
  INSERT INTO ledger.pending (event_id) VALUES (NEW.event_id);
  RETURN NULL;
END $$;
CREATE TRIGGER z_enqueue AFTER INSERT ON ledger.event FOR EACH ROW EXECUTE FUNCTION ledger.enqueue();
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER z_enqueue;
"""

NO_LEDGER = "DROP SCHEMA ledger CASCADE;"


class Migration(migrations.Migration):
    dependencies = [("consents", "0001_initial")]
    operations = [migrations.RunSQL(LEDGER, NO_LEDGER)]
