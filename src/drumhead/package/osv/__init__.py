"""OSv kernels provided by the user: identifying files, adapting modules, and the package made from them."""
