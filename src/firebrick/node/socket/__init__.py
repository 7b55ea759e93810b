"""The socket of a node, by which the owner of its home looks into its machines.

wire       what both ends say
door       the node's end
caller     the command line's end: which nodes there are, which has a machine
roster     the machines that are there to be looked into
"""
