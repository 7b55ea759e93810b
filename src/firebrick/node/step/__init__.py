"""The steps of a job in its machine, one after the other or beside each other. From the outside in:

background                       steps that run in the background, and what waits for them
step                             a step, as it is reported
hook                             what the node has a job do before its first step and after its last one
phase                            whether a phase of a step runs, how it ends, and what it leaves behind
launch, filecommand              its environment, and the files in which it says what it wants of the runner
script                           its process: started, listened to, ended in time
listener, matching, outputs      what it writes: lines, commands, problems, outputs
deadline, intime                 when its time is over
bench, hashfiles                 what all steps of a job share, and what their expressions see
"""
