"""Mixed traffic, faults and cancellations for as long as one likes; then nothing is left over.

`python -m soak 30` runs for thirty minutes, `--seed` repeats a run's choices. It exits with 1
and names what is left if anything is.
"""
