"""Machines that are kept when their job is over or goes on, and what begins from them.

keeper                  when the machine of a job is kept
checkpoint, carried     what is left in the guest to go on from there, and of it what belongs to the steps
shelf                   where the snapshots and their records are, for how long, and how many
quota                   which of them go where they are too many
rerun, resume           a job that goes on from one
reopened                one that somebody looks into
"""
