"""The tree beside the log: leaves in order, signed checkpoints, cosignatures, promises; all append-only.

Statement triggers with transition tables check a whole batch at once: a row trigger would cost more than the tree.
"""

from django.db import migrations

TREE = r"""
-- What waits to be ordered keeps the place in which it came, so that entries of one act stay in their order.
ALTER TABLE ledger.pending RENAME TO pending_before;
CREATE TABLE ledger.pending (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id uuid NOT NULL,
  leaf_hash bytea NOT NULL,
  enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO ledger.pending (event_id, leaf_hash, enqueued_at)
  SELECT event_id, leaf_hash, enqueued_at FROM ledger.pending_before JOIN ledger.event USING (event_id)
  ORDER BY enqueued_at, event_id;
DROP TABLE ledger.pending_before;
DROP TRIGGER z_enqueue ON ledger.event;
CREATE OR REPLACE FUNCTION ledger.enqueue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
  INSERT INTO ledger.pending (event_id, leaf_hash) SELECT event_id, leaf_hash FROM fresh;
  RETURN NULL;
END $$;
CREATE TRIGGER z_enqueue AFTER INSERT ON ledger.event REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.enqueue();
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER z_enqueue;

CREATE TABLE ledger.leaf (
  leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
  event_id uuid NOT NULL UNIQUE,
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
  sequenced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE ledger.checkpoint (
  tree_size bigint PRIMARY KEY CHECK (tree_size >= 0),
  root_hash bytea NOT NULL CHECK (octet_length(root_hash) = 32),
  note text NOT NULL,
  signed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE ledger.cosignature (
  tree_size bigint NOT NULL REFERENCES ledger.checkpoint,
  key_name text NOT NULL,
  key_id bytea NOT NULL,
  cosigned_at bigint NOT NULL,
  line text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tree_size, key_name, key_id, cosigned_at)
);
-- What was promised and has not yet been seen in the published tree; kept promises go, broken ones stay and are told.
CREATE TABLE ledger.promise (
  event_id uuid PRIMARY KEY,
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
  due_at timestamptz NOT NULL
);

CREATE FUNCTION ledger.leaf_dense() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE first bigint; last bigint; n bigint; before bigint; same bigint;
BEGIN
  SELECT min(leaf_index), max(leaf_index), count(*) INTO first, last, n FROM fresh;
  IF n = 0 THEN RETURN NULL; END IF;
  SELECT max(leaf_index) INTO before FROM ledger.leaf WHERE leaf_index < first;
  IF first <> coalesce(before, -1) + 1 OR last - first + 1 <> n OR EXISTS (SELECT 1 FROM ledger.leaf WHERE leaf_index > last) THEN
    RAISE EXCEPTION 'leaves % to % are not dense after %', first, last, before USING ERRCODE = '23L02';
  END IF;
  SELECT count(*) INTO same FROM fresh JOIN ledger.event USING (event_id) WHERE event.leaf_hash = fresh.leaf_hash;
  IF same <> n THEN
    RAISE EXCEPTION 'leaf hash mismatch in leaves % to %', first, last USING ERRCODE = '23L03';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER b_dense AFTER INSERT ON ledger.leaf REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.leaf_dense();
ALTER TABLE ledger.leaf ENABLE ALWAYS TRIGGER b_dense;

CREATE FUNCTION ledger.checkpoint_rises() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM ledger.checkpoint WHERE tree_size >= NEW.tree_size) THEN
    RAISE EXCEPTION 'checkpoint size % would roll back', NEW.tree_size USING ERRCODE = '23L04';
  END IF;
  IF NEW.tree_size > (SELECT coalesce(max(leaf_index) + 1, 0) FROM ledger.leaf) THEN
    RAISE EXCEPTION 'checkpoint beyond leaves' USING ERRCODE = '23L05';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER b_rises BEFORE INSERT ON ledger.checkpoint FOR EACH ROW EXECUTE FUNCTION ledger.checkpoint_rises();
ALTER TABLE ledger.checkpoint ENABLE ALWAYS TRIGGER b_rises;

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['leaf', 'checkpoint', 'cosignature'] LOOP
    EXECUTE format('CREATE TRIGGER a_no_row BEFORE UPDATE OR DELETE ON ledger.%I FOR EACH ROW EXECUTE FUNCTION ledger.refuse()', t);
    EXECUTE format('CREATE TRIGGER a_no_stmt BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.%I FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse()', t);
    EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER a_no_row', t);
    EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER a_no_stmt', t);
  END LOOP;
END $$;
"""

NO_TREE = r"""
DROP TABLE ledger.promise, ledger.cosignature, ledger.checkpoint, ledger.leaf;
DROP FUNCTION ledger.leaf_dense(); DROP FUNCTION ledger.checkpoint_rises();
DROP TRIGGER z_enqueue ON ledger.event;
CREATE OR REPLACE FUNCTION ledger.enqueue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
  INSERT INTO ledger.pending (event_id) VALUES (NEW.event_id);
  RETURN NULL;
END $$;
CREATE TRIGGER z_enqueue AFTER INSERT ON ledger.event FOR EACH ROW EXECUTE FUNCTION ledger.enqueue();
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER z_enqueue;
"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0003_guards")]
    operations = [migrations.RunSQL(TREE, NO_TREE)]
