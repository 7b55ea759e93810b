"""What `uses` of a step does. In the order of the data:

source, store, trees       where actions of other repositories come from, and which of them this host keeps
externals                  Node.js, from this host
allowed                    which of them a node lets in
definition                 `action.yml`, from a tree on the host or a folder in the machine
fetched, need, book        the actions of one job: fetched, opened, put into its machine
use                        a step's action, with what its phases share
inputs                     what it is given
javascript, docker         how it is carried out; composite ones by `firebrick.node.step.phase`, which carries out all steps
native, artifact           those the node carries out itself; `firebrick.node.checkout` is one of them
inside                     paths their inputs name
"""
