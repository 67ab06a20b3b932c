"""The providers: one protocol, and everything that knows how one of them talks."""
