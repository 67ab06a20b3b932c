"""The benchmark: the gateway beside a byte copier, a bare function and peers, against one upstream."""
