"""What `uses` of a step does: where the action is, what it is given, and how each kind of action is carried out.

reference -> found (locate) -> opened (book) -> run, phase by phase (firebrick.node.phase)
"""
