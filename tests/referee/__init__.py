"""A referee apart from the code: random stories of a data centre, judged by what users get.

`python -m tests.referee --help`. A story (story.py) is a spec and a list of timed events (events.py); drive.py plays it
under virtual time, rules/ judge what the operator does by what is true in the simulated world, shrink.py looks for the
shortest story that still breaks a rule. All that is imported from the code under test stands in bridge.py.
"""
