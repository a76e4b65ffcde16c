"""Triggers that only forbid: what is terminal in the domain is terminal in the database too."""

from django.db import migrations

# Ended is for ever, erasure only goes forward, a delivery only goes forward: also for raw SQL.
GUARDS = r"""
CREATE FUNCTION erasure_rank(erasure text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE erasure WHEN 'not_requested' THEN 0 WHEN 'requested' THEN 1 WHEN 'refused' THEN 2 WHEN 'confirmed' THEN 3 END
$$;
CREATE FUNCTION ended_stays_ended() RETURNS trigger LANGUAGE plpgsql AS $$
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
     AND NOT (OLD.erasure = 'refused' AND NEW.erasure = 'requested') THEN
    RAISE EXCEPTION 'erasure of % % only goes forward', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_erasure_goes_forward';
  END IF;
  IF NEW.version < OLD.version THEN
    RAISE EXCEPTION 'version of % % only rises', TG_TABLE_NAME, OLD.id
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_version_rises';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE OR DELETE ON consents_subscription
  FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
ALTER TABLE consents_subscription ENABLE ALWAYS TRIGGER a_ended_stays_ended;
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE OR DELETE ON consents_consent
  FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
ALTER TABLE consents_consent ENABLE ALWAYS TRIGGER a_ended_stays_ended;

CREATE FUNCTION delivery_rank(state text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE state WHEN 'sent' THEN 1 WHEN 'received' THEN 2 WHEN 'stopped' THEN 3 WHEN 'erased' THEN 4 ELSE 0 END
$$;
CREATE FUNCTION delivery_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE FUNCTION request_is_decided_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state <> 'pending' AND (NEW.state, NEW.decided_at, NEW.subscription_id)
       IS DISTINCT FROM (OLD.state, OLD.decided_at, OLD.subscription_id) THEN
    RAISE EXCEPTION 'consent request % is decided', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'consent_request_is_decided_once';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_decided_once BEFORE UPDATE ON consents_consentrequest FOR EACH ROW EXECUTE FUNCTION request_is_decided_once();
ALTER TABLE consents_consentrequest ENABLE ALWAYS TRIGGER a_decided_once;

CREATE FUNCTION published_terms_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state <> 'draft' AND (
       TG_OP = 'DELETE'
       OR (NEW.service_id, NEW.version, NEW.published_at, NEW.change_kind, NEW.text_ko, NEW.text_en, NEW.digest_ko, NEW.digest_en,
           NEW.summary_ko, NEW.summary_en)
          IS DISTINCT FROM (OLD.service_id, OLD.version, OLD.published_at, OLD.change_kind, OLD.text_ko, OLD.text_en, OLD.digest_ko,
           OLD.digest_en, OLD.summary_ko, OLD.summary_en)
       OR NEW.state = 'draft' OR (OLD.state = 'retired' AND NEW.state <> 'retired')) THEN
    RAISE EXCEPTION 'published terms % never change', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'published_terms_never_change';
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_never_change BEFORE UPDATE OR DELETE ON providers_terms FOR EACH ROW EXECUTE FUNCTION published_terms_never_change();
ALTER TABLE providers_terms ENABLE ALWAYS TRIGGER a_never_change;

CREATE FUNCTION published_items_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owners uuid[];
BEGIN
  -- An item can neither leave published terms nor be moved into them.
  IF TG_OP <> 'INSERT' THEN owners := owners || OLD.terms_id; END IF;
  IF TG_OP <> 'DELETE' THEN owners := owners || NEW.terms_id; END IF;
  IF EXISTS (SELECT 1 FROM providers_terms WHERE id = ANY (owners) AND state <> 'draft') THEN
    RAISE EXCEPTION 'items of published terms % never change', owners
      USING ERRCODE = '23514', CONSTRAINT = 'published_items_never_change';
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_never_change BEFORE INSERT OR UPDATE OR DELETE ON providers_termsitem
  FOR EACH ROW EXECUTE FUNCTION published_items_never_change();
ALTER TABLE providers_termsitem ENABLE ALWAYS TRIGGER a_never_change;

CREATE FUNCTION row_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % refused: append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_is_append_only';
END $$;
CREATE TRIGGER a_append_only BEFORE UPDATE OR DELETE ON consents_evidence FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
ALTER TABLE consents_evidence ENABLE ALWAYS TRIGGER a_append_only;
CREATE TRIGGER a_append_only BEFORE UPDATE OR DELETE ON consents_lookup FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
ALTER TABLE consents_lookup ENABLE ALWAYS TRIGGER a_append_only;
CREATE TRIGGER a_append_only BEFORE UPDATE OR DELETE ON providers_licence FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
ALTER TABLE providers_licence ENABLE ALWAYS TRIGGER a_append_only;
"""

NO_GUARDS = r"""
DROP TRIGGER a_append_only ON providers_licence; DROP TRIGGER a_append_only ON consents_lookup;
DROP TRIGGER a_append_only ON consents_evidence; DROP FUNCTION row_is_append_only();
DROP TRIGGER a_never_change ON providers_termsitem; DROP FUNCTION published_items_never_change();
DROP TRIGGER a_never_change ON providers_terms; DROP FUNCTION published_terms_never_change();
DROP TRIGGER a_decided_once ON consents_consentrequest; DROP FUNCTION request_is_decided_once();
DROP TRIGGER a_goes_forward ON consents_delivery; DROP FUNCTION delivery_goes_forward(); DROP FUNCTION delivery_rank(text);
DROP TRIGGER a_ended_stays_ended ON consents_consent; DROP TRIGGER a_ended_stays_ended ON consents_subscription;
DROP FUNCTION ended_stays_ended(); DROP FUNCTION erasure_rank(text);
"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0002_ledger"), ("providers", "0001_initial")]
    operations = [migrations.RunSQL(GUARDS, NO_GUARDS)]
