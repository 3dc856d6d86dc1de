"""OSv kernels that a user brings: which releases there are, the modules they lack, and the package made of one."""
