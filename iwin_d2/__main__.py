"""`python -m iwin_d2` prints an environment report."""

from .environment import collect_environment

if __name__ == "__main__":
    print(collect_environment())
