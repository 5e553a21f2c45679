"""Planted bugs: the tests must notice each. `python -m mutations`, or `nox -s mutate`.

A suite that has never failed proves nothing. There are two kinds of bugs:

- the thought-out ones, in `thought_out/`: a passage of a file, and a worse one in its place;
- the mechanical ones, which `mutator` makes from the syntax tree: a call dropped, `<` for `<=`.
  They need no upkeep, and they find what nobody thought of.

`belongs` says which tests belong to a file, and `accepted.txt` names the mechanical ones that
change nothing that a test could see, each with its reason.
"""
