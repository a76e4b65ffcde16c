"""JSON doors, by audience."""
