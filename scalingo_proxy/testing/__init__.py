r"""Public fakes and contract suites, for the tests of whoever embeds the proxy.

Start with :class:`~scalingo_proxy.testing.world.World`: a whole proxy between
scripted clients and backends, without sockets or real time, repeatable from a
seed::

    from scalingo_proxy.testing import replies
    from scalingo_proxy.testing.world import World

    world = World(seed=7, latency=0.002, cut=True)
    hello = world.app("hello", ["hello.test"], backends=2)
    hello.backends[0].answer(replies.close_silently())
    response = world.request(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
    assert response.body == b"hello-2"
    world.end()

What it is made of can be used alone:

``transports``
    Flow-controlled streams in memory that keep Twisted's rules.
``network``
    Listening, connecting and time: stands where a reactor stands.
``faults``
    What may happen to a connection, as values, and by chance from a seed.
``backends``, ``replies``, ``clients``
    The two ends of the proxy, doing as told and recording all they see.
``messages``
    A strict reader of HTTP/1 that shares nothing with the proxy's own.
``observers``
    An observer that keeps every record.

The contract suites ``transport_contract``, ``resolver_contract`` and
``feed_contract`` hold any provider to what the proxy relies on; mix them into
a test case that makes the provider.
"""
