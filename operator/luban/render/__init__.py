"""Pure text and objects: libvirt XML, httpd configuration, Kubernetes objects. No I/O."""
