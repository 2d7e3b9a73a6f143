"""A local Kubernetes cluster behind kind's command line, for machines without Docker.

A cluster is one process tree in namespaces of its own (PID, mount, network): `lifecycle` starts `node_init` as
process 1 of that tree, which starts etcd, Kubernetes' commands, containerd and CoreDNS. When process 1 ends, the
kernel ends everything below it and removes every mount, interface, address and iptables rule with the namespaces,
so that nothing has to be found by name to be cleaned up.

Standard library only: it has to run before any virtual environment exists.
"""
