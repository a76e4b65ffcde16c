"""What a page of consents costs does not grow with the operator's subscriptions: each row is looked up by its key.

Without OFFSET the planner may read all of an organization's subscriptions first, to have them in a hash."""

from django.db import migrations

OWN = "NULLIF(current_setting('portal.organization', true), '')::uuid"


def _rules(end: str) -> str:
    return f"""
ALTER POLICY own_rows ON consents_consent USING (source_id = {OWN} OR recipient_id = {OWN} OR EXISTS (
  SELECT FROM consents_subscription s WHERE s.id = subscription_id AND s.operator_id = {OWN}{end}));
ALTER POLICY own_rows ON consents_person USING (EXISTS (
  SELECT FROM consents_subscription s WHERE s.person_id = consents_person.id AND s.operator_id = {OWN}{end}));
ALTER POLICY own_rows ON consents_subscription USING (operator_id = {OWN}
  OR EXISTS (SELECT FROM consents_delivery a WHERE a.subscription_id = consents_subscription.id AND a.organization_id = {OWN}{end})
  OR EXISTS (SELECT FROM consents_case a WHERE a.subscription_id = consents_subscription.id AND a.organization_id = {OWN}{end}));
"""  # noqa: S608  # constants of this module


class Migration(migrations.Migration):
    dependencies = [("consents", "0020_weekly_calls")]
    operations = [migrations.RunSQL(_rules(" OFFSET 0"), _rules(""))]
