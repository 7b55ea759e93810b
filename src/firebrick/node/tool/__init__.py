"""The tool cache: what jobs have put below `RUNNER_TOOL_CACHE`, kept for those that come after them. In the order of the data:

name      a tool, a version and an architecture, as `@actions/tool-cache` lays them out
limits    how much is kept: the table `[node.tools]`
scope     whose job it is, what it may read and where it may write
digest    what a tree holds, as one digest
entry     records: which tool of which scope is which tree, and what each job used
quota     what goes where there is too much
shelf     all of that on the disk of the node, by digest
archive   tools an administrator brings, from directories and archives
inside    what is in the tool cache of a machine
cache     the tools of one job: what its machine begins with, and what is kept of it
"""
