"""The rows with Firecracker: measured by `python -m bench.lab` as root inside the lab, an emulated host with KVM, and brought out by `outside`.

Figures of the lab are those of a processor that is itself emulated, where Python is some twenty times slower than on a real one and copying memory is not:
what is code of ours weighs more in these ratios than anywhere else."""
