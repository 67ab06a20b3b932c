"""The HTTP edge: routes, the two dialects, server-sent events, and errors as responses."""
