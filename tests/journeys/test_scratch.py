from django.utils import timezone
from consents import lifecycle
from tests import factories
from tests.partners import application_of
import time

def test_scratch(partners, transactional_db, me, person, client):
    service = factories.offered()
    partners.connect_everybody()
    t=time.time()
    s = factories.joined(person, service)
    partners.settle()
    print("settled", time.time()-t)
    assert partners.operators_holding(person) == {service.organization.code}
    lifecycle.leave(s, erase=True, by=me, at=timezone.now())
    partners.settle()
    print("settled", time.time()-t)
    s.refresh_from_db()
    print(s.erasure, partners.totals(), partners.held())
    assert partners.operators_holding(person) == set()
    print(application_of(person, client).get("me/summary"))
