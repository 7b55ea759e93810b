"""What is put around a VMM, so that a guest that breaks out of it has gained nothing.

room        the contract: where a VMM finds its files, and how it is started there
limits      what a machine may take of the host: records
group       control groups (version 2) with these limits
jailer      rooms of Firecracker's own jailer
bubble      rooms of QEMU, by bubblewrap
"""
