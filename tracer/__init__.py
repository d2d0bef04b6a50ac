"""memcg-tracer."""
