"""One file a wire, each against somebody else's implementation or its protocol's own examples."""
