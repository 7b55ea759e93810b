"""What happened, and whether a workflow starts by it.

event             a name, a payload, the files it is about
filter            whether it starts a workflow, and why
pattern, cron     branches, tags and paths by pattern; schedules
inputs            what a dispatch or a call gives
"""
