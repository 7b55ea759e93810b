"""The control plane: takes requests for builds, keeps them, and has them run on a node, in order and within capacity.

Read in this order: record (what a build is), store, scheduler, queue, build (the life of one), log and artifact, builds (all of it as one
object), api (that object over HTTP).
"""
