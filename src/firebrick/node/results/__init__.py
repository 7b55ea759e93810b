"""What the jobs of a run keep beyond their machines.

shelf       the directory of a run's artifacts, and what of a guest comes into it
archive     the same as zip archives, as GitHub's clients have them
offer       the services of `firebrick.results`, reached from each job's machine by a port of its own
"""
