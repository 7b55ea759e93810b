"""A run, from its order to the last of its jobs. In the order of the data:

callee              the workflows it calls, of its own sources and of other repositories
run                 planned, let in by its concurrency group, finished
turnstile           the concurrency groups of the node
course              the jobs of one workflow, each when those it needs are done; each is carried out by `firebrick.node.job`
environment         what a job is given by the environment it names, or that it does not begin
call                the order for a workflow that a job calls, which has a course of its own
fork                the common part of a matrix, run once
shared              what all courses of a run have in common
"""
