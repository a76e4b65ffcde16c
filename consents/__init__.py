"""People and what they agreed: everything that happens between a person and a service."""
