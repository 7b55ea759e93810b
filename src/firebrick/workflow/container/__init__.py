"""`container` and `services` of a job.

reader        a file into records
options       the arguments of `docker create` that mean something here
container     all of it, evaluated
"""
