"""`python -m caspi` is `caspi`."""

from caspi.cli import main

main()
