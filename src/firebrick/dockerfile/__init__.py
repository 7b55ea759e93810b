"""The language of Dockerfiles, as far as it can be known without running anything. Pure: no file, process, clock or network. In the order of the data:

reader       text -> instructions: lines that go on, comments, directives, here-documents
words        what quotes, `$name` and `${name:-word}` in an instruction mean
pattern      `COPY *.txt` and `.dockerignore`
file         instructions -> stages, and which of them the last one needs
work         a stage, once it is known what it begins from -> what is to be done, and how the image is run
check        all mistakes at once, of a Dockerfile nobody builds yet

Whoever wrote a Dockerfile is not trusted: every size has a bound, and all of it takes time in proportion to the text.
"""
