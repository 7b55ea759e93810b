"""The network of machines: a namespace each, the same addresses in all of them, and a firewall that lets through what was allowed.

policy      what a machine may reach, and what may reach it: records
rules       a policy as one nftables ruleset: pure
slot        one namespace with its tap, made, filled with a policy, counted and removed
pool        slots made before they are wanted
resolver    names that are allowed become addresses that are allowed
"""
