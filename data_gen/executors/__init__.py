"""Who completes shards or cells: this process, local processes, a cluster."""
