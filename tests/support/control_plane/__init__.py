"""What the tests of the operator share: objects as the API server sends them, an API server in memory, a clock."""
