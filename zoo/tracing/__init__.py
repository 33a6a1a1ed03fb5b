"""How `zoo.tracing.trace` reads an exported graph."""
