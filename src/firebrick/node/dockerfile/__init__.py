"""Images made of the Dockerfiles of actions. The host reads them, and runs nothing of them: a machine does. In the order of the data:

context      the files beside a Dockerfile, or of a stage: what `COPY` chooses of them
source       an action's Dockerfile and its context, on this host
key          what an image is kept by: all it is made of, and who may have it
archive      archives that `ADD` takes apart
put          files into the machine of a stage
stage        one stage in its machine, and what later ones copy of it
builder      all of that: the image of an action
"""
