"""`python -m luban.node_agent`."""

from luban.logs import configure_logging
from luban.node_agent.command import node_agent_command

configure_logging()
node_agent_command()
