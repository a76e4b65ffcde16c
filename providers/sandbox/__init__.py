"""Pretend operators and sources: one real HTTP server on loopback with switchable faults, for the demo and the tests.

It stands for the other side, so it uses nothing of the portal but what any operator could write for itself from the
published contract: checking a webhook and a SET. It has its own little database and no models.
"""
