"""HTML doors, by audience: find through `access`, make one domain call, answer."""
