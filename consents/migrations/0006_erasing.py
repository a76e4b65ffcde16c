"""A person goes link by link: legal hold, then disclosures, then the key, then the rows; each link refuses in the database."""

from django.db import migrations, models

ERASING = r"""
-- Gone is who closed the account and whose data key is destroyed: from then on nothing about them can be read anyway.
CREATE FUNCTION is_shredded(owner uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM consents_person WHERE id = owner AND closed_at IS NOT NULL)
     AND NOT EXISTS (SELECT 1 FROM consents_personkey WHERE person_id = owner)
$$;

CREATE FUNCTION person_key_outlives_its_disclosures() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    RAISE EXCEPTION 'key % is fixed', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'person_key_is_fixed';
  END IF;
  IF EXISTS (SELECT 1 FROM ledger.disclosure WHERE subject_key_id = OLD.id) THEN
    RAISE EXCEPTION 'key % still has disclosures under it', OLD.id
      USING ERRCODE = '23514', CONSTRAINT = 'person_key_outlives_its_disclosures';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER a_outlives BEFORE UPDATE OR DELETE ON consents_personkey
  FOR EACH ROW EXECUTE FUNCTION person_key_outlives_its_disclosures();
ALTER TABLE consents_personkey ENABLE ALWAYS TRIGGER a_outlives;

CREATE FUNCTION closed_stays_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.closed_at IS NOT NULL AND NEW.closed_at IS DISTINCT FROM OLD.closed_at THEN
    RAISE EXCEPTION 'account % is closed', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'person_closed_stays_closed';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER a_stays_closed BEFORE UPDATE OF closed_at ON consents_person
  FOR EACH ROW EXECUTE FUNCTION closed_stays_closed();
ALTER TABLE consents_person ENABLE ALWAYS TRIGGER a_stays_closed;

-- For subscriptions and consents the trigger of 0003 goes on saying no to everything else.
CREATE FUNCTION goes_with_its_person() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owner uuid;
BEGIN
  IF TG_TABLE_NAME = 'consents_evidence' THEN
    SELECT person_id INTO owner FROM consents_delivery WHERE id = OLD.delivery_id;
  ELSE
    owner := OLD.person_id;
  END IF;
  IF NOT is_shredded(owner) THEN
    RAISE EXCEPTION '% is kept until its person is erased', TG_TABLE_NAME
      USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_' || TG_ARGV[0];
  END IF;
  RETURN OLD;
END $$;

DROP TRIGGER a_ended_stays_ended ON consents_subscription;
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE ON consents_subscription FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
ALTER TABLE consents_subscription ENABLE ALWAYS TRIGGER a_ended_stays_ended;
DROP TRIGGER a_ended_stays_ended ON consents_consent;
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE ON consents_consent FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
ALTER TABLE consents_consent ENABLE ALWAYS TRIGGER a_ended_stays_ended;
DROP TRIGGER a_append_only ON consents_evidence;
CREATE TRIGGER a_append_only BEFORE UPDATE ON consents_evidence FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
ALTER TABLE consents_evidence ENABLE ALWAYS TRIGGER a_append_only;
DROP TRIGGER a_append_only ON consents_lookup;
CREATE TRIGGER a_append_only BEFORE UPDATE ON consents_lookup FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
ALTER TABLE consents_lookup ENABLE ALWAYS TRIGGER a_append_only;

CREATE TRIGGER b_goes_with_its_person BEFORE DELETE ON consents_subscription
  FOR EACH ROW EXECUTE FUNCTION goes_with_its_person('is_never_deleted');
CREATE TRIGGER b_goes_with_its_person BEFORE DELETE ON consents_consent
  FOR EACH ROW EXECUTE FUNCTION goes_with_its_person('is_never_deleted');
CREATE TRIGGER b_goes_with_its_person BEFORE DELETE ON consents_delivery
  FOR EACH ROW EXECUTE FUNCTION goes_with_its_person('is_never_deleted');
CREATE TRIGGER b_goes_with_its_person BEFORE DELETE ON consents_evidence
  FOR EACH ROW EXECUTE FUNCTION goes_with_its_person('is_append_only');
CREATE TRIGGER b_goes_with_its_person BEFORE DELETE ON consents_lookup
  FOR EACH ROW EXECUTE FUNCTION goes_with_its_person('is_append_only');
DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['subscription', 'consent', 'delivery', 'evidence', 'lookup'] LOOP
    EXECUTE format('ALTER TABLE consents_%s ENABLE ALWAYS TRIGGER b_goes_with_its_person', t);
  END LOOP;
END $$;
"""

NO_ERASING = r"""
DROP TRIGGER b_goes_with_its_person ON consents_lookup; DROP TRIGGER b_goes_with_its_person ON consents_evidence;
DROP TRIGGER b_goes_with_its_person ON consents_delivery; DROP TRIGGER b_goes_with_its_person ON consents_consent;
DROP TRIGGER b_goes_with_its_person ON consents_subscription;
DROP TRIGGER a_append_only ON consents_lookup; DROP TRIGGER a_append_only ON consents_evidence;
DROP TRIGGER a_ended_stays_ended ON consents_consent; DROP TRIGGER a_ended_stays_ended ON consents_subscription;
CREATE TRIGGER a_append_only BEFORE UPDATE OR DELETE ON consents_lookup FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
CREATE TRIGGER a_append_only BEFORE UPDATE OR DELETE ON consents_evidence FOR EACH ROW EXECUTE FUNCTION row_is_append_only();
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE OR DELETE ON consents_consent FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
CREATE TRIGGER a_ended_stays_ended BEFORE UPDATE OR DELETE ON consents_subscription FOR EACH ROW EXECUTE FUNCTION ended_stays_ended();
ALTER TABLE consents_lookup ENABLE ALWAYS TRIGGER a_append_only; ALTER TABLE consents_evidence ENABLE ALWAYS TRIGGER a_append_only;
ALTER TABLE consents_consent ENABLE ALWAYS TRIGGER a_ended_stays_ended;
ALTER TABLE consents_subscription ENABLE ALWAYS TRIGGER a_ended_stays_ended;
DROP FUNCTION goes_with_its_person(); DROP TRIGGER a_stays_closed ON consents_person; DROP FUNCTION closed_stays_closed();
DROP TRIGGER a_outlives ON consents_personkey; DROP FUNCTION person_key_outlives_its_disclosures(); DROP FUNCTION is_shredded(uuid);
"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0005_verification")]
    operations = [
        migrations.AddField(
            model_name="person",
            name="closed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="person",
            constraint=models.CheckConstraint(
                condition=models.Q(("closed_at__isnull", True), ("is_active", False), _connector="OR"),
                name="closed_person_cannot_sign_in",
            ),
        ),
        migrations.AddIndex(
            model_name="person",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", False)), fields=["closed_at"], name="closed_accounts"
            ),
        ),
        migrations.RunSQL(ERASING, NO_ERASING),
    ]
