"""The same request twice at once is done once."""

import threading

import pytest
from django.db import connection

from consents.models import IdempotencyKey, Subscription
from tests import factories

from .conftest import Caller, token
from .test_person import joining


@pytest.mark.django_db(transaction=True)
def test_two_at_once_with_one_key_are_one_act():
    from consents import oauth

    person, service = factories.PersonFactory(), factories.offered()
    app = oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])
    value, asked, start, answers = token(app, person, ["me"]), joining(service), threading.Barrier(4), []

    def join():
        try:
            caller = Caller(value)
            start.wait(timeout=10)
            answers.append(
                caller.post(f"services/{service.slug}/subscriptions", asked, Idempotency_Key="once")
            )
        finally:
            connection.close()

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer for answer in answers) == 3
    assert Subscription.objects.filter(person=person).count() == IdempotencyKey.objects.count() == 1
