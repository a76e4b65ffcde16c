"""Demo data: an invented cast and its history, told through the domain's own functions."""
