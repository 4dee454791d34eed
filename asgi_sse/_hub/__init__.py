"""
Channels over HTTP, to subscribe and to publish: ``python -m asgi_sse channel``.
"""
