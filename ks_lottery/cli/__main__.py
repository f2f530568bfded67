"""`python -m ks_lottery.cli` is `ks-lottery`."""

from ks_lottery.cli.app import main

if __name__ == "__main__":
    main()
