"""How `zoo.trace` reads an exported graph."""
