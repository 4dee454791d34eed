"""
What asgi_sse costs, side by side with its peers: see README.rst.
"""
