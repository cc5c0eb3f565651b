"""A Qdrant server for tests: its REST and gRPC on real sockets, as far as qdrant-client uses them for us, answered by
the real engine (Qdrant Edge, a shard for each collection).

    collections.py   the collections, aliases and settings of a server, on the disk
    conversion.py    what requests carry, as the engine wants it
    strict_mode.py   what a server refuses when its operator has said so
    refusals.py      the errors, as both protocols tell them
    rest.py, rpc.py  the two protocols
    server.py        a server in this process; `python -m tests.fakes.qdrant_server DIRECTORY` is one of its own

What Edge lacks is done here as Qdrant 1.19's source does it: aliases, keys, strict mode, settings that may be changed.
There is one node, which optimises nothing by itself.
"""
