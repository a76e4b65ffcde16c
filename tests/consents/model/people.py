"""What people do, with what is theirs and with what is not."""

from types import SimpleNamespace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from consents import access, accounts, lifecycle, speedbump
from consents.actors import Actor
from consents.models import Notice
from providers.models import Organization, Service, Terms

from .both import SYSTEM, BothSides, number
from .shapes import DAY, No
from .world import PEOPLE, SERVICES


class People(BothSides):
    @initialize(
        joins=st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(SERVICES)), min_size=1, max_size=3)
    )
    def begin(self, joins):
        for person, service in joins:
            self.join(person, service, [True, True], True, 0, 0)

    @rule(
        person=st.sampled_from(PEOPLE), service=st.sampled_from(SERVICES), optional=st.lists(st.booleans(), min_size=2, max_size=2),
        required=st.sampled_from([True] * 7 + [False]), until=st.sampled_from([0, 0, 0, 60, -1]), stale=st.sampled_from([0, 0, 0, 1]),
    )  # fmt: skip
    def join(self, person, service, optional, required, until, stale):
        if person in self.model.closed:
            return
        offer = self.model.services[service]
        own, third, marketing = (item.about for item in offer.items[1:])
        about = [offer.items[0].about] * required + [own] * optional[0] + [third, marketing] * optional[1]
        version = offer.terms - stale or 2  # another one than is published, or not yet
        until_on = self.model.today + until * DAY if until else None

        def real():
            row = Service.objects.select_related("organization").get(pk=self.world.services[service])
            terms = Terms.objects.get(service=row, version=version)
            items = terms.items.select_related("source", "recipient")
            choices = [
                lifecycle.Choice(i)
                for i in items
                if (i.source or i.recipient or SimpleNamespace(code=i.kind)).code in about
            ]
            who = self.person(person)
            lifecycle.join(
                person=who, service=row, terms=terms, choices=choices, language="ko", until_on=until_on, by=Actor.person(who),
                at=self.now,
            )  # fmt: skip

        self.act(lambda: self.model.join(person, service, terms=version, about=about, until=until_on), real)

    @precondition(lambda self: self.model.subscriptions)
    @rule(
        n=number,
        erase=st.booleans(),
        by=st.sampled_from(["person", "person", "source", "operator"]),
        twice=st.booleans(),
    )
    def withdraw(self, n, erase, by, twice):
        s, c = self.one(self.consents("active", "paused"), n)
        code = {"person": "", "source": c.about if c.kind == "transfer" else "", "operator": s.operator}[by]
        actor = Actor.organization(Organization.objects.get(code=code)) if code else self.actor(s)
        reason = "source_left" if code else "person_withdrew"
        for _time in range(1 + twice):
            self.act(
                lambda: self.model.withdraw(s, c, erase=erase, by=code, reason=reason),
                lambda: lifecycle.withdraw(
                    self.row((s, c)), erase=erase, by=actor, at=self.now, reason=reason
                ),
            )

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number, consent=st.booleans())
    def end_somebody_elses(self, n, consent):
        s, c = self.one(self.consents("active"), n)
        stranger = SimpleNamespace(user=self.person(PEOPLE[s.key[0] == PEOPLE[0]]))

        def expected():
            raise No("Http404")

        def real():
            if consent:
                row = access.own_consent(stranger, self.seen.consent_pks[s.key, c.about])
                lifecycle.withdraw(row, erase=True, by=SYSTEM, at=self.now)
            else:
                row = access.own_subscription(stranger, self.seen.subscription_pks[s.key])
                lifecycle.leave(row, erase=True, by=SYSTEM, at=self.now)

        self.act(expected, real)

    @precondition(lambda self: self.model.subscriptions)
    @rule(
        n=number,
        erase=st.booleans(),
        by=st.sampled_from(["person", "person", "operator"]),
        twice=st.booleans(),
    )
    def leave(self, n, erase, by, twice):
        s = self.one(self.subscriptions("active"), n)
        code = s.operator if by == "operator" else ""
        actor = Actor.organization(Organization.objects.get(code=code)) if code else self.actor(s)
        reason = "operator_closed" if code else "person_left"
        for _time in range(1 + twice):
            self.act(
                lambda: self.model.leave(s, erase=erase, by=code, reason=reason),
                lambda: lifecycle.leave(self.row(s), erase=erase, by=actor, at=self.now, reason=reason),
            )

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number)
    def erase(self, n):
        s = self.one(self.subscriptions("ended"), n)
        self.act(
            lambda: self.model.erase(s), lambda: lifecycle.erase(self.row(s), by=self.actor(s), at=self.now)
        )

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number)
    def erase_consent(self, n):
        s, c = self.one(self.consents("ended"), n)
        self.act(
            lambda: self.model.erase_consent(s, c),
            lambda: lifecycle.erase_consent(self.row((s, c)), by=self.actor(s), at=self.now),
        )

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number, until=st.sampled_from([None, 30, 30, -1]))
    def pause(self, n, until):
        s, c = self.one(self.consents("active"), n)
        day = None if until is None else self.model.today + until * DAY
        self.act(
            lambda: self.model.pause(s, c, until=day),
            lambda: lifecycle.pause(self.row((s, c)), until_on=day, by=self.actor(s), at=self.now),
        )

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number)
    def resume(self, n):
        s, c = self.one(self.consents("paused"), n)
        self.act(
            lambda: self.model.resume(s, c),
            lambda: lifecycle.resume(self.row((s, c)), by=self.actor(s), at=self.now),
        )

    @precondition(lambda self: self.model.subscriptions)
    @rule(
        n=number,
        what=st.sampled_from(
            ["fewer scopes", "no scopes", "more scopes", "rarer", "oftener", "sooner", "renew", "too long"]
        ),
    )
    def amend(self, n, what):
        s, c = self.one(self.consents("active"), n)
        changes = {
            "fewer scopes": {"scopes": list(c.scopes[:1])}, "no scopes": {"scopes": []}, "more scopes": {"scopes": ["bank.invest"]},
            "rarer": {"cycle": "1/4w"}, "oftener": {"cycle": "1/1w"}, "sooner": {"until": c.until - DAY},
            "renew": {"until": self.model.today + 360 * DAY}, "too long": {"until": self.model.today + 400 * DAY},
        }[what]  # fmt: skip
        real = {"until_on" if name == "until" else name: value for name, value in changes.items()}
        self.act(
            lambda: self.model.amend(s, c, **changes),
            lambda: lifecycle.amend(self.row((s, c)), by=self.actor(s), at=self.now, **real),
        )

    @precondition(lambda self: self.steps > 8)
    @rule(name=st.sampled_from(PEOPLE), really=st.sampled_from([True, False, False]))
    def close_account(self, name, really):
        if really and name not in self.model.closed:
            self.act(
                lambda: self.model.close_account(name),
                lambda: accounts.close(who := self.person(name), by=Actor.person(who), at=self.now),
            )

    @precondition(lambda self: any(not notice[3] for notice in self.model.notices))
    @rule(n=number)
    def answer_notice(self, n):
        notice = self.one([notice for notice in self.model.notices if not notice[3]], n)

        def real():
            who = self.person(notice[0])
            client = Service.objects.get(pk=self.world.services[notice[1]]).client_id
            row = Notice.objects.get(person=who, kind="mismatch", matter=client, answer="")
            speedbump.answer(notice=row, answer="kept", by=Actor.person(who), at=self.now)

        self.act(lambda: notice.__setitem__(3, "kept"), real)
