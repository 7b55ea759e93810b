"""Where jobs get machines from.

driver       what runs them, with the jail and the networks that the settings ask for
template     what they are forks of
quota        which of those go when there are too many
turns        how many there are at once, and who waits
pool         all of that as the `Lender` of `firebrick.node.guest`
"""
