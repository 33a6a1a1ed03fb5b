"""Who trains the shards: this process, local processes, a cluster."""
