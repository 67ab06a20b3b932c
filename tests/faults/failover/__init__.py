"""The proof of failing well: the sixteen scenarios of Failover Bench, and the other promises over several providers."""
