"""How zoos are written: folders claimed, tables typed, networks read, shards and manifests."""
