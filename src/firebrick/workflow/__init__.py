"""The workflow language, pure: text in, records and decisions out; no process, no socket, no clock. In the order of the data:

yaml                                   text into nodes that know their place
schema                                 what a file may say, as data
reader, job_reader, step_reader        a workflow file into the records of `syntax`
action_file                            the same of an `action.yml`; `uses`, `reference`: what names one
template, expression                   what is evaluated later
event                                  what happened, and whether it starts a workflow
called                                 the workflows that one calls
plan, matrix, graph, fork              the jobs of a run
policy, permission, admission          what they ask of whoever runs them; concurrency groups
preview                                what is known of jobs before any has run
container                              what else they run in and beside
context, shell, hashing, glob          what a step gets
command                                what it says back
outcome                                what follows from how jobs and steps ended

`detect` makes a workflow where there is none; `diagram` with `layout` draws what jobs need; `problem` is what is wrong with a file.
"""
