"""One process of the seed: Django is set up here, in a fresh interpreter, before anything of it is imported."""

import signal
from multiprocessing.connection import Connection


def work(pipe: Connection, people: range, seed: int, now, jwks: dict[str, dict]) -> None:
    """Make these people in one transaction; commit when told to, roll back when nobody is left to tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    import django

    django.setup()
    from django.db import transaction
    from joserfc.jwk import ECKey

    from consents.demo import bulk

    keys = {code: ECKey.import_key(jwk) for code, jwk in jwks.items()}
    try:
        with transaction.atomic():
            bulk.settle(people, seed=seed, now=now, keys=keys, progress=pipe.send)
            pipe.send("ready")
            pipe.recv()
    except (EOFError, BrokenPipeError):
        raise SystemExit(1) from None
