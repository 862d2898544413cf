# install, deps, run, test
