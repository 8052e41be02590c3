"""The guest image of the lab's VMs: a small Debian that starts the web service in seconds without KVM."""
