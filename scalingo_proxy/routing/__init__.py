"""Who serves a request: routes, pools, leases, balancing. Time is an argument; no sockets."""
