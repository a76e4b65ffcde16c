"""Fault experiments of the log (F08 to F11): real processes, real PostgreSQL with fsync, killed by recorded id."""
