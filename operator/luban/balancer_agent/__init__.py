"""The program beside Apache httpd: makes httpd do what the balancer's ConfigMap says, and reports what it does."""
