"""The network of machines: a namespace each, the same addresses in all of them, and a firewall that lets through what was allowed.

policy      what a machine may reach, and what may reach it: records
addresses   the addresses that are the same everywhere, and those that follow from a seat
rules       a policy as one nftables ruleset, and the host's own: pure
namespace   entering a namespace for a moment: settings, taps
forwarding  the host's own switch for it
host        the host's side, shared by all slots
slot        one namespace with its tap, made, filled with a policy, counted and removed
pool        slots made before they are wanted
resolver    names that are allowed become addresses that are allowed
"""
