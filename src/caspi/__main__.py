"""`python -m caspi` is `caspi`."""

from caspi.program import main

main()
