"""Other platforms doing the same work, each in an environment of its own."""
