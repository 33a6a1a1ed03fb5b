"""Zoos on disk: manifest, columns, populations, cards, exports and the Hub."""
