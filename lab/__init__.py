"""The lab: tests that need KVM, Firecracker and root, run in an emulated host that has all three. `tools/lab` starts it.

It is a program of this tree, as `bench/` is, and no part of the product: it uses the product to make its host, and that is its first test.

- lab.toml: the root image of the host
- binaries: Firecracker and its jailer, of a release whose digests are known
- packages: Python packages the tests need, for the Python of that image
- ground: what the tests stand on: kernel, initramfs and root image for the machines in the lab, and the two programs
- supply: makes or fetches it
- drives: all of that as read-only disks
- host: the emulated host, booted and prepared once, and restored from then on
- inside: the Python that waits there for test runs
- project: the tree under test, and how it gets in
- session: one command in one lab: its output, its status, its evidence
- here: the same tests on this host, where it has a KVM that works
"""
