"""Images that a workflow names, each in a machine of its own.

image                 what a name of an image means, and how it comes into the store
built                 those that are made of Dockerfiles: found by what they were made of
service, services     one service of a job, and all of them: found by name, without a network
companion             one more machine for as long as a step needs it: an action that is an image
"""
