"""What may stand in workflow and action files, as data, and the walk that compares a file with it.

shape, element                       what a shape is, and those that most places have
allowed                              what an expression may name at each place
workflow, event, step, container     the file of a workflow, from the top down
action                               the file of an action
"""
