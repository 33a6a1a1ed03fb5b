"""The group of a weight space: action, canonical form, alignment, and what they leave unchanged."""
