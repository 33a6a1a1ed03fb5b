"""Training of many networks in lock step."""
