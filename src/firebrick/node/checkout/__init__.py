"""`actions/checkout`, done by the node: git runs on the host, hardened, and what it made goes into the machine. In the order of the data:

wish         the inputs of the step
origin       where a repository comes from: the run's own, a mirror, a forge; what the address of a submodule means
point        what `ref` names, and what is fetched and checked out for it
config       configuration of git, written so that no name gets out of its line
repository   one repository on the host: fetched, with its HEAD, its configuration, its files
sparse       which files of a tree a sparse checkout has
submodule    what a commit says of its submodules
lfs          files that are kept beside the repository
made         all that a wish comes to: the pieces that are put into the machine
checkout     the action itself
"""
