"""Linux confinement: namespaces, Landlock, seccomp, limits, and the probe for them."""
