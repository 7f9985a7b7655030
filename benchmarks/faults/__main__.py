"""`python -m benchmarks.faults`."""

from benchmarks.faults.run import main

if __name__ == "__main__":
    main()
