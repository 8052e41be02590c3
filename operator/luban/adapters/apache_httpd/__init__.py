"""Apache httpd as the balancer agent drives it: process, balancer-manager, connections."""
