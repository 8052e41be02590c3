"""The program on each node: watches the health of the network bonds and reports it in the node's LubanHost."""
