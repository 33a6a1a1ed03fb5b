"""How `zoo.tracing.tracer` reads an exported graph."""
