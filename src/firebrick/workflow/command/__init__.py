"""What a step says to whoever runs it.

command                    `::commands::` in what it writes
file                       what it leaves in GITHUB_ENV, GITHUB_OUTPUT and their like
matcher, matcher_file      problems of tools in what it writes, and the files that describe them
masker                     secrets out of what it writes
"""
