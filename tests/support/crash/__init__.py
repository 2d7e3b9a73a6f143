"""A story that a cluster lives through while its operator is killed."""
