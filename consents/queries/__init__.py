"""Reads, finished: one function per screen, rows ready for the template, counted queries."""
