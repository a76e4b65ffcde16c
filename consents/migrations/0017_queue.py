"""The queue gets a table of its own, and the lease another: a claim, a try and a retry no longer write a delivery's indexes.

The rows of `outgoing` follow the deliveries by trigger, so that no writer can forget them (decision 0010). What a message
says is compared only where a statement names those columns: comparing two long texts cost more than the change itself.
"""

import django.db.models.deletion
from django.db import migrations, models

NEVER_CHECKED = models.Q(
    check_at__isnull=True, checks=0, overtaken=False, replay_of__isnull=True, sent_at__isnull=False
) & ~models.Q(goal="received")

FILL = r"""
INSERT INTO consents_outgoing (delivery_id, organization_id, subscription_id, next_at, in_order, stop_since)
SELECT id, organization_id, subscription_id, next_at, state <> 'dead', CASE WHEN goal <> 'received' THEN created_at END
FROM consents_delivery WHERE next_at IS NOT NULL AND state IN ('queued', 'retrying', 'dead');
INSERT INTO consents_lease (delivery_id, organization_id, token, until, tries)
SELECT id, organization_id, lease_token, lease_until, 1 FROM consents_delivery WHERE lease_token IS NOT NULL;
UPDATE consents_delivery SET check_at = now()
WHERE state = 'checking' AND goal <> 'received' AND NOT overtaken AND check_at IS NULL AND checks = 0 AND replay_of_id IS NULL;
"""

KEEP = r"""
CREATE FUNCTION keep_outgoing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'DELETE' AND NEW.next_at IS NOT NULL AND NEW.state IN ('queued', 'retrying', 'dead') THEN
    IF TG_OP = 'UPDATE' THEN
      UPDATE consents_outgoing SET next_at = NEW.next_at, in_order = NEW.state <> 'dead' WHERE delivery_id = NEW.id;
      IF FOUND THEN RETURN NULL; END IF;
    END IF;
    INSERT INTO consents_outgoing (delivery_id, organization_id, subscription_id, next_at, in_order, stop_since)
    VALUES (NEW.id, NEW.organization_id, NEW.subscription_id, NEW.next_at, NEW.state <> 'dead',
      CASE WHEN NEW.goal <> 'received' THEN NEW.created_at END);
  ELSIF TG_OP <> 'INSERT' THEN
    DELETE FROM consents_outgoing WHERE delivery_id = OLD.id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER keep_outgoing_new AFTER INSERT ON consents_delivery FOR EACH ROW
  WHEN (NEW.next_at IS NOT NULL AND NEW.state IN ('queued', 'retrying', 'dead')) EXECUTE FUNCTION keep_outgoing();
CREATE TRIGGER keep_outgoing_moved AFTER UPDATE ON consents_delivery FOR EACH ROW
  WHEN (OLD.next_at IS DISTINCT FROM NEW.next_at OR OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION keep_outgoing();
CREATE TRIGGER keep_outgoing_gone AFTER DELETE ON consents_delivery FOR EACH ROW EXECUTE FUNCTION keep_outgoing();
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER keep_outgoing_new;
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER keep_outgoing_moved;
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER keep_outgoing_gone;
"""
NO_KEEP = """
DROP TRIGGER keep_outgoing_new ON consents_delivery; DROP TRIGGER keep_outgoing_moved ON consents_delivery;
DROP TRIGGER keep_outgoing_gone ON consents_delivery; DROP FUNCTION keep_outgoing();
"""

GUARDS = r"""
DROP TRIGGER a_goes_forward ON consents_delivery;
CREATE OR REPLACE FUNCTION delivery_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'delivery % cannot go back from % to %', OLD.id, OLD.state, NEW.state
    USING ERRCODE = '23514', CONSTRAINT = 'delivery_goes_forward';
END $$;
CREATE FUNCTION delivery_message_is_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.jti, NEW.txn, NEW.organization_id, NEW.body, NEW.set_compact, NEW.goal)
     IS DISTINCT FROM (OLD.jti, OLD.txn, OLD.organization_id, OLD.body, OLD.set_compact, OLD.goal) THEN
    RAISE EXCEPTION 'what delivery % says is fixed', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'delivery_message_is_fixed';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_goes_forward BEFORE UPDATE ON consents_delivery FOR EACH ROW
  WHEN (delivery_rank(NEW.state) < delivery_rank(OLD.state)) EXECUTE FUNCTION delivery_goes_forward();
CREATE TRIGGER a_message_is_fixed BEFORE UPDATE OF jti, txn, organization_id, body, set_compact, goal ON consents_delivery
  FOR EACH ROW EXECUTE FUNCTION delivery_message_is_fixed();
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER a_goes_forward;
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER a_message_is_fixed;
"""
OLD_GUARDS = r"""
DROP TRIGGER a_message_is_fixed ON consents_delivery; DROP FUNCTION delivery_message_is_fixed();
DROP TRIGGER a_goes_forward ON consents_delivery;
CREATE OR REPLACE FUNCTION delivery_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF delivery_rank(NEW.state) < delivery_rank(OLD.state) THEN
    RAISE EXCEPTION 'delivery % cannot go back from % to %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = '23514', CONSTRAINT = 'delivery_goes_forward';
  END IF;
  IF (NEW.jti, NEW.txn, NEW.organization_id, NEW.body, NEW.set_compact, NEW.goal)
     IS DISTINCT FROM (OLD.jti, OLD.txn, OLD.organization_id, OLD.body, OLD.set_compact, OLD.goal) THEN
    RAISE EXCEPTION 'what delivery % says is fixed', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'delivery_message_is_fixed';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_goes_forward BEFORE UPDATE ON consents_delivery FOR EACH ROW EXECUTE FUNCTION delivery_goes_forward();
ALTER TABLE consents_delivery ENABLE ALWAYS TRIGGER a_goes_forward;
"""

# A retry finds room beside the row it replaces, and carries no long text along; the queue is swept before it grows.
STORAGE = r"""
ALTER TABLE consents_delivery SET (fillfactor = 50, toast_tuple_target = 256);
ALTER TABLE consents_delivery ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN set_compact SET STORAGE EXTERNAL;
ALTER TABLE consents_outgoing SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
ALTER TABLE consents_lease SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
"""
NO_STORAGE = r"""
ALTER TABLE consents_delivery RESET (fillfactor, toast_tuple_target);
ALTER TABLE consents_delivery ALTER COLUMN body SET STORAGE EXTENDED, ALTER COLUMN set_compact SET STORAGE EXTENDED;
"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0016_request_codes"), ("providers", "0004_decisions_of_one_day")]
    operations = [
        migrations.CreateModel(
            name="Outgoing",
            fields=[
                (
                    "delivery",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="outgoing",
                        serialize=False,
                        to="consents.delivery",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="providers.organization",
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="consents.subscription",
                    ),
                ),
                ("next_at", models.DateTimeField()),
                (
                    "in_order",
                    models.BooleanField(help_text="later messages about the subscription wait for it"),
                ),
                (
                    "stop_since",
                    models.DateTimeField(
                        help_text="when the stop was owed; null for news about grants", null=True
                    ),
                ),
            ],
            options={"verbose_name_plural": "outgoing"},
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "delivery",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="lease",
                        serialize=False,
                        to="consents.delivery",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="providers.organization",
                    ),
                ),
                ("token", models.UUIDField()),
                ("until", models.DateTimeField()),
                (
                    "tries",
                    models.PositiveSmallIntegerField(help_text="that nothing was heard of, and this one"),
                ),
            ],
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="delivery", name="lease_has_token_and_end"),
        migrations.RemoveIndex(model_name="delivery", name="waiting_by_organization"),
        migrations.RemoveIndex(model_name="delivery", name="deliveries_under_way"),
        migrations.RemoveIndex(model_name="delivery", name="deliveries_never_checked"),
        migrations.RemoveIndex(model_name="delivery", name="waiting_in_order"),
        migrations.RemoveField(model_name="delivery", name="lease_token"),
        migrations.RemoveField(model_name="delivery", name="lease_until"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(name="deliveries_never_checked", fields=["id"], condition=NEVER_CHECKED),
        ),
        migrations.AddIndex(
            model_name="outgoing",
            index=models.Index(
                fields=["organization", "next_at", "delivery"], name="outgoing_by_organization"
            ),
        ),
        migrations.AddIndex(
            model_name="outgoing",
            index=models.Index(
                condition=models.Q(("in_order", True)),
                fields=["subscription", "organization", "delivery"],
                name="outgoing_in_order",
            ),
        ),
        migrations.RunSQL(GUARDS, OLD_GUARDS),
        migrations.RunSQL(KEEP, NO_KEEP),
        migrations.RunSQL(STORAGE, NO_STORAGE),
    ]
