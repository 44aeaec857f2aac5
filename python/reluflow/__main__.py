"""``python -m reluflow``, which launchers such as mpiexec need."""

from reluflow.cli import main

if __name__ == "__main__":
    main()
