"""What every service of a VM has, whatever it serves: health, readiness, metrics, sessions, the VM's name."""
