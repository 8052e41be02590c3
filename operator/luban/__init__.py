"""Luban Cloud: a Kubernetes operator that runs web services in KVM virtual machines behind Apache httpd."""

__version__ = "0.1.0"
