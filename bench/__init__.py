"""`make bench`: the product against bare QEMU, both measured in the same run, one after the other, medians compared.

floor    bare QEMU with a busybox initramfs, started here, by hand, with nothing of firebrick
product  the same thing done through firebrick
rows     one function a row of the table: measures both sides, returns a `Row`
table    prints the rows and writes build/bench.json
"""
