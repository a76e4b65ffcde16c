"""Fault experiments of propagation (F01 to F07, F13 to F15): every accepted withdrawal reaches every party, exactly once in
effect, whatever breaks. Real processes, real PostgreSQL with fsync, real HTTP; killed by recorded id."""
