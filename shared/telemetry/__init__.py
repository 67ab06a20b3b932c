"""What the process tells about itself: logs, and the trace ids that tie them together."""
