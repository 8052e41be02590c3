"""Network bonds on a real kernel: a QEMU guest with two bonds, cables to pull, and the failover experiment."""
