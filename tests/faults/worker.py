"""A Celery worker that is killed (SIGKILL, with all its processes) at the worst moment; otherwise the real one.

`FAULT_AT=claimed`: rows are leased, nothing is sent yet. `FAULT_AT=sent`: the other side has answered, nothing is
recorded yet. The portal's own code knows nothing of this: `propagation` is patched here, before the pool forks.
"""

import os
import signal
import sys

import django


def die(*_args: object, **_options: object) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from celery.__main__ import main

    from consents import propagation, sending

    if os.environ["FAULT_AT"] == "claimed":
        sending.Sender.start = die  # type: ignore[method-assign]
    else:
        propagation.record_all = die  # type: ignore[assignment]
    sys.argv[0] = "celery"
    sys.exit(main())
