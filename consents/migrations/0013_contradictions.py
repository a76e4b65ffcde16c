"""A confirmed erasure goes back to asked only where a look or a transfer since has contradicted it; otherwise only forward."""

from django.db import migrations

IS_CONTRADICTED = r"""
CREATE FUNCTION is_contradicted(subscription uuid, since timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT 1 FROM consents_check AS look JOIN consents_delivery AS told ON told.id = look.delivery_id
    WHERE told.subscription_id = subscription AND look.finding <> '' AND look.at >= since
  ) OR EXISTS (
    SELECT 1 FROM consents_transfer AS flow
    WHERE flow.subscription_id = subscription AND flow.after_stop AND flow.at >= since
  )
$$;
"""

# As in 0003, with room for one exception.
GUARD = r"""
CREATE OR REPLACE FUNCTION ended_stays_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION '% is kept for ever', TG_TABLE_NAME USING ERRCODE = '23P01', CONSTRAINT = TG_TABLE_NAME || '_is_never_deleted';
  END IF;
  IF OLD.state = 'ended' AND (NEW.state, NEW.ended_at, NEW.end_reason, NEW.until_on)
       IS DISTINCT FROM (OLD.state, OLD.ended_at, OLD.end_reason, OLD.until_on) THEN
    RAISE EXCEPTION '% % has ended and cannot be revived or extended', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_ended_stays_ended';
  END IF;
  IF erasure_rank(NEW.erasure) < erasure_rank(OLD.erasure)
     AND NOT (OLD.erasure = 'refused' AND NEW.erasure = 'requested'){exception} THEN
    RAISE EXCEPTION 'erasure of % % only goes forward', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_erasure_goes_forward';
  END IF;
  IF NEW.version < OLD.version THEN
    RAISE EXCEPTION 'version of % % only rises', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_version_rises';
  END IF;
  RETURN NEW;
END $$;
"""
EXCEPTION = r"""
     AND NOT (OLD.erasure = 'confirmed' AND NEW.erasure = 'requested' AND is_contradicted(
       coalesce(to_jsonb(OLD)->>'subscription_id', OLD.id::text)::uuid, OLD.erasure_confirmed_at))"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0012_fewer_indexes")]
    operations = [
        migrations.RunSQL(
            IS_CONTRADICTED + GUARD.replace("{exception}", EXCEPTION),
            GUARD.replace("{exception}", "") + "DROP FUNCTION is_contradicted(uuid, timestamptz);",
        )
    ]
