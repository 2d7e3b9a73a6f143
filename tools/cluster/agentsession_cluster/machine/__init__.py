"""What a cluster of this machine consists of: the node, its network, volumes and certificates, and how they end."""
