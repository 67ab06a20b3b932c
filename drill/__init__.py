"""The failover drill: kill the first of two providers under load, and look at what its callers notice."""
