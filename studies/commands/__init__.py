"""What `symzoo` does besides studies."""
