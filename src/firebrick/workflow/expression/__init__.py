"""What stands in `${{ }}`.

value, json_value     the values there are, how they turn into one another, and into JSON
lexer, parser         text into tokens, tokens into a tree
function, evaluate    a tree into a value
expression            all of that, with what an expression may see
answer                an expression asked by itself
"""
