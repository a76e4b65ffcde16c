"""Settings of a portal with a hole made on purpose: no filter and no lock keeps one organization's rows from another."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "tests.faults.hole_urls"
