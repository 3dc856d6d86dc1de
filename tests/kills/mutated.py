"""Break the product in one way, then run one of its programs: `python -m kills.mutated NAME MODULE ARGUMENTS`."""

import runpy
import sys

from kills.mutations import MUTATIONS

if __name__ == "__main__":
    name, module, *arguments = sys.argv[1:]
    MUTATIONS[name][0]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
