"""A data centre on one machine: control plane, two KVM hosts, guest image, balancer, load. Development only."""
