"""`python -m luban.balancer_agent`."""

from luban.balancer_agent.command import balancer_agent_command
from luban.logs import configure_logging

configure_logging()
balancer_agent_command()
