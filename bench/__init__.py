"""`make bench`: the product against bare QEMU, both measured in the same run, one after the other, medians compared.

- floor: bare QEMU with a busybox initramfs, started by hand, with nothing of firebrick
- bed: what both sides are measured on
- machines, work, served: the rows; each function measures both sides
- row, table: one line of the table; all of it, on the terminal and in build/bench.json
"""
