"""What keeps a request bounded when a provider is not."""
