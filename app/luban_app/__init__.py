"""The web service that the VMs of a Luban cluster serve.

`frame` has what every such service needs: health, readiness, metrics and sessions. What it serves to people is added
as further routes (see `luban_app.frame.routes.Extension`): `house` has the rules and puts the parts together,
`catalogue` the indicators, `store` the databases, `web` the pages, `api` the JSON interface.
"""
