"""KVM hosts through libvirt: the Hypervisor port."""
