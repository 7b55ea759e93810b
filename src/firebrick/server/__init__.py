"""The control plane: takes requests for builds, keeps them, and has them run on a node, in order and within capacity.

Read in this order: record (what a build is), store with gate and schedule, scheduler, queue, build (the life of one) with occasion (its event), plan,
environment and order, log and artifact, clockwork (what is done by the clock) with gatekeeper and timetable, builds (all of it as one object), api
(that object over HTTP) with shape and followup.
"""
