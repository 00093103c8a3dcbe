"""How bytes move between sockets: nothing here knows HTTP, TLS or routing."""
